"""ScanNet v2 without colour, for sensors that have none: as scannet.py in everything else.

Lists of a base cannot be changed in part: all transforms are repeated, less those of colour.
"""

_base_ = ["scannet.py"]

grid_size = 0.02  # metres
in_channels = 6  # coord, normal

transform = [
    dict(type="PointId"),
    dict(type="GridSample", grid_size=grid_size, hash_type="fnv", mode="train"),
    dict(
        type="TwoViews",
        view_keys=("coord", "normal", "point_id"),
        view_scale=(0.4, 1.0),
        max_size=65536,
        view_transform=[
            dict(type="CenterShift", apply_z=True),
            dict(type="RandomScale", scale=[0.9, 1.1]),
            dict(type="RandomRotate", angle=[-1, 1], axis="z", center=[0, 0, 0], p=0.8),
            dict(type="RandomRotate", angle=[-1 / 64, 1 / 64], axis="x", p=0.8),
            dict(type="RandomRotate", angle=[-1 / 64, 1 / 64], axis="y", p=0.8),
            dict(type="RandomFlip", p=0.5),
            dict(type="RandomJitter", sigma=0.005, clip=0.02),
            dict(type="ElasticDistortion", distortion_params=[[0.2, 0.4], [0.8, 1.6]]),
            dict(
                type="GridSample",
                grid_size=grid_size,
                hash_type="fnv",
                mode="train",
                return_grid_coord=True,
            ),
        ],
    ),
    dict(type="BlockMask", block_size=0.4, mask_ratio=0.7),
    dict(type="ToTensor"),
    dict(type="Update", keys_dict=dict(grid_size=grid_size)),
    dict(
        type="Collect",
        keys=(
            "view1_coord",
            "view1_grid_coord",
            "view1_point_id",
            "view1_visible",
            "view2_coord",
            "view2_grid_coord",
            "view2_point_id",
            "view2_visible",
            "grid_size",
            "name",
        ),
        offset_keys_dict=dict(view1_offset="view1_coord", view2_offset="view2_coord"),
        view1_feat_keys=("view1_coord", "view1_normal"),
        view2_feat_keys=("view2_coord", "view2_normal"),
    ),
]

data = dict(train=dict(transform=transform))
