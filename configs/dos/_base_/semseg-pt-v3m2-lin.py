"""Linear probe of the PTv3 encoder of pt-v3m2.py: one linear layer on all five levels, stacked."""

model = dict(
    type="DOS-Segmentor-v1m1",
    backbone_out_channels=1232,  # 48 + 96 + 192 + 384 + 512
    # the data set sets num_classes, criteria and in_channels
    backbone=dict(
        type="PT-v3m2",
        order=("z", "z-trans", "hilbert", "hilbert-trans"),
        stride=(2, 2, 2, 2),
        enc_depths=(3, 3, 3, 12, 3),
        enc_channels=(48, 96, 192, 384, 512),
        enc_num_head=(3, 6, 12, 24, 32),
        enc_patch_size=(1024, 1024, 1024, 1024, 1024),
        mlp_ratio=4,
        qkv_bias=True,
        qk_scale=None,
        attn_drop=0.0,
        proj_drop=0.0,
        drop_path=0.3,  # without effect: what is frozen is in eval mode
        shuffle_orders=True,  # without effect, too
        pre_norm=True,
        enable_rpe=False,
        enable_flash=True,
        upcast_attention=False,
        upcast_softmax=False,
        enc_mode=True,
    ),
    freeze_backbone=True,
)
