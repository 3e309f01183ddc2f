"""Views of LiDAR scans: coordinates in the frame of the sensor, metres, and strength.

Nothing is shifted or stretched: fine-tuning sees the same frame. Views are cut from the
whole scan, also where it is far away.
"""

grid_size = 0.05  # metres
in_channels = 4  # coord, strength

transform = [
    dict(type="PointId", max_extent=2000),  # metres: drops stray points that PTv3 cannot number
    dict(type="GridSample", grid_size=grid_size, hash_type="fnv", mode="train"),
    dict(
        type="TwoViews",
        view_keys=("coord", "strength", "point_id"),
        view_scale=(0.4, 1.0),
        max_size=65536,
        view_transform=[
            dict(type="RandomRotate", angle=[-1, 1], axis="z", center=[0, 0, 0], p=0.8),
            # small: at a range of 50 m, 1/128 of pi lifts a point by 1.2 m
            dict(type="RandomRotate", angle=[-1 / 128, 1 / 128], axis="x", center=[0, 0, 0], p=0.8),
            dict(type="RandomRotate", angle=[-1 / 128, 1 / 128], axis="y", center=[0, 0, 0], p=0.8),
            dict(type="RandomScale", scale=[0.9, 1.1]),
            dict(type="RandomFlip", p=0.5),
            dict(type="RandomJitter", sigma=0.005, clip=0.02),
            dict(
                type="GridSample",
                grid_size=grid_size,
                hash_type="fnv",
                mode="train",
                return_grid_coord=True,
            ),
        ],
    ),
    dict(type="BlockMask", block_size=1.0, mask_ratio=0.7),
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
        view1_feat_keys=("view1_coord", "view1_strength"),
        view2_feat_keys=("view2_coord", "view2_strength"),
    ),
]
