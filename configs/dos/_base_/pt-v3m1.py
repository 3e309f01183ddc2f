"""DOS with the encoder of PTv3, mode 1 (BatchNorm at stem and poolings), in the host's own size.

The teacher runs in eval mode on the running statistics of the student. Features as with
mode 2: two poolings below the input, the coarser levels appended.

Without flash-attn set model.backbone.enable_flash=False and a smaller enc_patch_size, such as 128
at each stage: plain attention keeps a square of that size for each head.

The memory named in the configs rests on what this encoder keeps for the backward pass, counted on
a CPU in float32 on a synthetic scan with the visible 30 % of its points: 101 kB a point, times 0.6
for mixed precision.
"""

model = dict(
    type="DOS-v1m1",
    # backbone - student & teacher; the data set sets in_channels
    backbone=dict(
        type="PT-v3m1",
        order=("z", "z-trans", "hilbert", "hilbert-trans"),
        stride=(2, 2, 2, 2),
        enc_depths=(2, 2, 2, 6, 2),
        enc_channels=(32, 64, 128, 256, 512),
        enc_num_head=(2, 4, 8, 16, 32),
        enc_patch_size=(1024, 1024, 1024, 1024, 1024),
        mlp_ratio=4,
        qkv_bias=True,
        qk_scale=None,
        attn_drop=0.0,
        proj_drop=0.0,
        drop_path=0.3,
        shuffle_orders=True,
        pre_norm=True,
        enable_rpe=False,
        enable_flash=True,
        upcast_attention=False,
        upcast_softmax=False,
        enc_mode=True,
    ),
    teacher_custom=dict(drop_path=0.0),
    backbone_out_channels=896,  # 128 + 256 + 512
    up_cast_level=2,
    head=dict(hidden_channels=4096, out_channels=256),
    num_prototypes=1024,
    sinkhorn=dict(type="ZipfSinkhorn", alpha=1.3, num_iters=3, scope="batch"),
    student_temp=0.1,
    teacher_temp_start=0.04,
    teacher_temp_base=0.07,
    teacher_temp_warmup_ratio=0.05,
    momentum_base=0.994,
    momentum_final=1.0,
)

base_lr = 0.001  # for 24 scenes a step: the host's Sonata has 0.004 for 96
lr_decay = 0.9  # layer-wise lr decay, from the last block to the first
enc_depths = model["backbone"]["enc_depths"]
param_dicts = [
    dict(
        keyword=f"enc{e}.block{b}.",
        lr=base_lr * lr_decay ** (sum(enc_depths) - sum(enc_depths[:e]) - b - 1),
    )
    for e in range(len(enc_depths))
    for b in range(enc_depths[e])
]
del enc_depths

optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.04)
scheduler = dict(
    type="OneCycleLR",
    max_lr=[base_lr] + [group["lr"] for group in param_dicts],
    pct_start=0.05,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=1000.0,
)
