"""Linear probe of SpUNet: one linear layer on the features of its decoder, which is pretrained."""

model = dict(
    type="DOS-Segmentor-v1m1",
    backbone_out_channels=96,
    # the data set sets num_classes, criteria and in_channels
    backbone=dict(
        type="SpUNet-v1m1",
        num_classes=0,
        channels=(32, 64, 128, 256, 256, 128, 96, 96),
        layers=(2, 3, 4, 6, 2, 2, 2, 2),
    ),
    freeze_backbone=True,
)
