"""CenterPoint of MMDetection3D on nuScenes with the encoder of PTv3 in place of its own.

Everything else is the stock config: ten sweeps, objects pasted, classes balanced, 20 epochs. The
encoder, the size of its cells and what hangs on it are set here; grid_size, point_cloud_range and
bev_stride decide the rest.

Batch: 32 scans a step, 4 on each of eight GPUs, as in the stock config. Not run on data: memory and
hours are not known.
"""

_base_ = ["mmdet3d::centerpoint/centerpoint_voxel0075_second_secfpn_8xb4-cyclic-20e_nus-3d.py"]
custom_imports = dict(imports=["dos_plugin.detection.mmdet3d"], allow_failed_imports=False)

grid_size = 0.05  # metres, as in the pretraining
point_cloud_range = [-54, -54, -5.0, 54, 54, 3.0]  # as in the stock config
bev_stride = 8  # cells of 0.4 m; an even number of them, for the 2D backbone halves the map
z_bins = 5
proj_channels = 64
features = ["coord", "strength", "time"]  # the pretraining has coord and strength

grid = dict(point_cloud_range=point_cloud_range, grid_size=grid_size, stride=bev_stride)
voxels = [round((point_cloud_range[i + 3] - point_cloud_range[i]) / grid_size) for i in (0, 1, 2)]
plane = dict(
    voxel_size=[grid_size, grid_size], out_size_factor=bev_stride, pc_range=point_cloud_range[:2]
)

model = dict(
    data_preprocessor=dict(
        _delete_=True,
        type="DOSDet3DDataPreprocessor",
        **grid,
        columns=["strength", "time"],
        features=features,
        strength_scale=1 / 255,
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
        checkpoint=None,
        branch="student",
        features=features,
        added_channels=0,
        freeze=False,
        amp="bfloat16",
    ),
    pts_backbone=dict(in_channels=proj_channels * z_bins),
    pts_bbox_head=dict(bbox_coder=plane),
    train_cfg=dict(
        pts=dict(
            grid_size=voxels,
            voxel_size=[grid_size] * 3,
            out_size_factor=bev_stride,
            point_cloud_range=point_cloud_range,
        )
    ),
    test_cfg=dict(pts=plane),
)
