"""Decoder probe: the encoder of pt-v3m2.py frozen, and the light decoder of the host's Sonata."""

model = dict(
    type="DOS-Segmentor-v1m1",
    backbone_out_channels=64,
    # the data set sets num_classes, criteria and in_channels
    backbone=dict(
        type="PT-v3m2",
        order=("z", "z-trans", "hilbert", "hilbert-trans"),
        stride=(2, 2, 2, 2),
        enc_depths=(3, 3, 3, 12, 3),
        enc_channels=(48, 96, 192, 384, 512),
        enc_num_head=(3, 6, 12, 24, 32),
        enc_patch_size=(1024, 1024, 1024, 1024, 1024),
        dec_depths=(2, 2, 2, 2),
        dec_channels=(64, 96, 192, 384),
        dec_num_head=(4, 6, 12, 24),
        dec_patch_size=(1024, 1024, 1024, 1024),
        mlp_ratio=4,
        qkv_bias=True,
        qk_scale=None,
        attn_drop=0.0,
        proj_drop=0.0,
        drop_path=0.3,  # in the decoder
        shuffle_orders=True,  # without effect: the encoder sets the orders
        pre_norm=True,
        enable_rpe=False,
        enable_flash=True,
        upcast_attention=False,
        upcast_softmax=False,
        enc_mode=False,
    ),
    freeze_backbone="encoder",
)
