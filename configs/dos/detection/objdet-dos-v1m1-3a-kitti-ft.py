"""
Fine-tuning of DOS for detection on KITTI: SECOND of MMDetection3D, the stock config but for the
middle encoder.

Weights: pretrain-dos-v1m1-0-semantic-kitti, the same sensor. The map has the stock config's cells.
Scans are those cut to the camera's field of view, as in the stock config.
"""

_base_ = ["mmdet3d::second/second_hv_secfpn_8xb6-80e_kitti-3d-3class.py"]
custom_imports = dict(imports=["dos_plugin.detection.mmdet3d"], allow_failed_imports=False)

features = ["coord", "strength"]
proj_channels = 64
z_bins = 5
grid = dict(point_cloud_range=[0, -40, -3, 70.4, 40, 1], grid_size=0.05, stride=8)

model = dict(
    data_preprocessor=dict(
        _delete_=True,
        type="DOSDet3DDataPreprocessor",
        **grid,
        columns=["strength"],
        features=features,
        strength_scale=1.0,  # 0 to 1 as stored
    ),
    voxel_encoder=dict(num_features=4),
    middle_encoder=dict(
        _delete_=True,
        type="DOSMiddleEncoder",
        **grid,
        z_bins=z_bins,
        proj_channels=proj_channels,
        backbone=dict(
            type="PT-v3m2",
            in_channels=4,
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
        checkpoint="exp/dos/pretrain-dos-v1m1-0-semantic-kitti/model/model_last.pth",
        features=features,
        amp="bfloat16",
    ),
    backbone=dict(in_channels=proj_channels * z_bins),
)
optim_wrapper = dict(constructor="DOSOptimWrapperConstructor", paramwise_cfg=dict(layer_decay=0.9))
