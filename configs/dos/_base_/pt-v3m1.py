"""DOS with the encoder of PTv3, mode 1 (BatchNorm at stem and poolings), in the host's own size.

The teacher runs in eval mode on the running statistics of the student. Features as with
mode 2: two poolings below the input, the coarser levels appended.

Everything else, flash-attn and the rates included, is as in pt-v3m2.py.

The memory named in the configs rests on what this encoder keeps for the backward pass, counted on
a CPU in float32 on a synthetic scan with the visible 30 % of its points: 101 kB a point, times 0.6
for mixed precision.
"""

_base_ = ["pt-v3m2.py"]

model = dict(
    backbone=dict(
        type="PT-v3m1",
        enc_depths=(2, 2, 2, 6, 2),
        enc_channels=(32, 64, 128, 256, 512),
        enc_num_head=(2, 4, 8, 16, 32),
    ),
    backbone_out_channels=896,  # 128 + 256 + 512
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
