"""DOS with SpUNet, the host's sparse convolutional U-Net.

It has no pooled levels to match at: features are those of its decoder at every input point. The
head is narrower than with PTv3, since it runs on many more rows.

The memory named in the configs rests on what this network keeps for the backward pass, counted on
a CPU in float32 on a synthetic scan with the visible 30 % of its points: 32 kB a point, times 0.6
for mixed precision.
"""

model = dict(
    type="DOS-v1m1",
    # backbone - student & teacher; the data set sets in_channels
    backbone=dict(
        type="SpUNet-v1m1",
        num_classes=0,
        channels=(32, 64, 128, 256, 256, 128, 96, 96),
        layers=(2, 3, 4, 6, 2, 2, 2, 2),
    ),
    backbone_out_channels=96,
    up_cast_level=0,
    head=dict(hidden_channels=1024, out_channels=256),
    num_prototypes=1024,
    sinkhorn=dict(type="ZipfSinkhorn", alpha=1.3, num_iters=3, scope="batch"),
    student_temp=0.1,
    teacher_temp_start=0.04,
    teacher_temp_base=0.07,
    teacher_temp_warmup_ratio=0.05,
    momentum_base=0.994,
    momentum_final=1.0,
)

base_lr = 0.001  # for 24 scenes a step
param_dicts = []  # no layer decay; a list, and not None, leaves the frozen teacher out
optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.04)
scheduler = dict(
    type="OneCycleLR",
    max_lr=[base_lr],
    pct_start=0.05,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=1000.0,
)
