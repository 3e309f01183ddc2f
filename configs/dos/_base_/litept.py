"""DOS with the encoder of LitePT, small: convolutions on fine levels, attention on coarse ones.

Features as with PTv3: two poolings below the input, the coarser levels appended. The teacher runs
in eval mode on the running statistics of the student.

It runs with flash-attn only, in float16 within the blocks. Its rotary positions are faster with
the host's libs/pointrope. It has no option for a mask token.

The rates are as in pt-v3m2.py. This encoder keeps 0.30 times as much for the backward pass as that
one, counted as there.
"""

_base_ = ["pt-v3m2.py"]

model = dict(
    # backbone - student & teacher; the data set sets in_channels
    backbone=dict(
        _delete_=True,
        type="LitePT-v1",
        order=("z", "z-trans", "hilbert", "hilbert-trans"),
        stride=(2, 2, 2, 2),
        enc_depths=(2, 2, 2, 6, 2),
        enc_channels=(36, 72, 144, 252, 504),
        enc_num_head=(2, 4, 8, 14, 28),
        enc_patch_size=(1024, 1024, 1024, 1024, 1024),
        enc_conv=(True, True, True, False, False),
        enc_attn=(False, False, False, True, True),
        enc_rope_freq=(100.0, 100.0, 100.0, 100.0, 100.0),
        mlp_ratio=4,
        qkv_bias=True,
        qk_scale=None,
        attn_drop=0.0,
        proj_drop=0.0,
        drop_path=0.3,
        shuffle_orders=True,
        pre_norm=True,
        enc_mode=True,
    ),
    backbone_out_channels=900,  # 144 + 252 + 504
)

# once more, with these depths
base_lr = 0.001
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

scheduler = dict(max_lr=[base_lr] + [group["lr"] for group in param_dicts])
