"""LiDAR scans for segmentation: frame, voxels and features of lidar.py, augmentation of the host.

It gives transforms, losses and all of data but classes and places of the data sets.

Nothing is clipped. The host clamps points of Waymo to a box of 75.2 m and those of SemanticKITTI
to one of 35.2 m; clamped points pile up on its walls, and pretraining has seen whole scans.
"""

grid_size = 0.05  # metres
in_channels = 4  # coord, strength
feat_keys = ("coord", "strength")
criteria = [
    dict(type="CrossEntropyLoss", loss_weight=1.0, ignore_index=-1),
    dict(type="LovaszLoss", mode="multiclass", loss_weight=1.0, ignore_index=-1),
]

train_transform = [
    dict(type="RandomRotate", angle=[-1, 1], axis="z", center=[0, 0, 0], p=0.5),
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
    dict(type="ToTensor"),
    dict(type="Collect", keys=("coord", "grid_coord", "segment", "name"), feat_keys=feat_keys),
]

val_transform = [
    dict(type="Copy", keys_dict=dict(segment="origin_segment")),
    dict(
        type="GridSample",
        grid_size=grid_size,
        hash_type="fnv",
        mode="train",
        return_grid_coord=True,
        return_inverse=True,
    ),
    dict(type="ToTensor"),
    dict(
        type="Collect",
        keys=("coord", "grid_coord", "segment", "origin_segment", "inverse", "name"),
        feat_keys=feat_keys,
    ),
]

test_transform = [
    dict(type="Copy", keys_dict=dict(segment="origin_segment")),
    dict(
        type="GridSample",
        grid_size=grid_size / 2,
        hash_type="fnv",
        mode="train",
        return_inverse=True,
    ),
]
test_voxelize = dict(
    type="GridSample",
    grid_size=grid_size,
    hash_type="fnv",
    mode="test",
    return_grid_coord=True,
)
test_post_transform = [
    dict(type="ToTensor"),
    dict(type="Collect", keys=("coord", "grid_coord", "index"), feat_keys=feat_keys),
]
# test-time augmentation: of nuScenes, and of the others, which is what data below names
test_scales_and_flips = [
    [dict(type="RandomScale", scale=[scale, scale]), *flip]
    for flip in ([], [dict(type="RandomFlip", p=1)])
    for scale in (0.9, 0.95, 1, 1.05, 1.1)
]
test_rotations = [
    [dict(type="RandomRotateTargetAngle", angle=[angle], axis="z", center=[0, 0, 0], p=1)]
    for angle in (0, 1 / 2, 1, 3 / 2)
]

# what the data sets share; they add num_classes, names, and type, split and data_root of each part
data = dict(
    ignore_index=-1,
    train=dict(transform=train_transform, test_mode=False, loop=1, ignore_index=-1),
    val=dict(transform=val_transform, test_mode=False, ignore_index=-1),
    test=dict(
        transform=test_transform,
        test_mode=True,
        test_cfg=dict(
            voxelize=test_voxelize,
            crop=None,
            post_transform=test_post_transform,
            aug_transform=test_rotations,
        ),
        ignore_index=-1,
    ),
)
