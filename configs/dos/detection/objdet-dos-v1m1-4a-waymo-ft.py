"""
Fine-tuning of DOS for detection on Waymo, one frame of five: SECOND of MMDetection3D. Unverified.

The host has no CenterPoint for Waymo; this changes the middle encoder of its SECOND. The config is
loaded and its model built in the tests, nothing more.

Weights: pretrain-dos-v1m1-0-waymo. Its strength is the tanh of the intensity, which the host
makes with norm_intensity; elongation is a channel more than it had.
"""

_base_ = ["mmdet3d::second/second_hv_secfpn_sbn-all_16xb2-2x_waymoD5-3d-3class.py"]
custom_imports = dict(imports=["dos_plugin.detection.mmdet3d"], allow_failed_imports=False)

features = ["coord", "strength", "elongation"]
proj_channels = 64
z_bins = 5
grid = dict(point_cloud_range=[-76.8, -51.2, -2, 76.8, 51.2, 4], grid_size=0.05, stride=8)

model = dict(
    data_preprocessor=dict(
        _delete_=True,
        type="DOSDet3DDataPreprocessor",
        **grid,
        columns=["strength", "elongation"],
        features=features,
        strength_scale=1.0,
    ),
    pts_voxel_encoder=dict(num_features=5),
    pts_middle_encoder=dict(
        _delete_=True,
        type="DOSMiddleEncoder",
        **grid,
        z_bins=z_bins,
        proj_channels=proj_channels,
        backbone=dict(
            type="PT-v3m2",
            in_channels=5,
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
            drop_path=0.3,
            shuffle_orders=True,
            pre_norm=True,
            enable_rpe=False,
            enable_flash=True,
            upcast_attention=False,
            upcast_softmax=False,
            enc_mode=True,
        ),
        checkpoint="exp/dos/pretrain-dos-v1m1-0-waymo/model/model_last.pth",
        features=features,
        added_channels=1,
        amp="bfloat16",
    ),
    pts_backbone=dict(in_channels=proj_channels * z_bins),
)
train_pipeline = [
    dict(step, norm_intensity=True) if step["type"] == "LoadPointsFromFile" else step
    for step in _base_.train_pipeline
]
test_pipeline = [
    dict(step, norm_intensity=True) if step["type"] == "LoadPointsFromFile" else step
    for step in _base_.test_pipeline
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(constructor="DOSOptimWrapperConstructor", paramwise_cfg=dict(layer_decay=0.9))
