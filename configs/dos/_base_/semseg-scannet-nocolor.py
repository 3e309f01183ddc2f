"""ScanNet v2 without colour: semseg-scannet.py with the features of scannet-nocolor.py.

Lists of a base cannot be changed in part: all transforms are repeated, less those of colour.
"""

_base_ = ["semseg-scannet.py"]

grid_size = 0.02  # metres
in_channels = 6  # coord, normal
feat_keys = ("coord", "normal")

train_transform = [
    dict(type="CenterShift", apply_z=True),
    dict(type="RandomDropout", dropout_ratio=0.2, dropout_application_ratio=1.0),
    dict(type="RandomRotate", angle=[-1, 1], axis="z", center=[0, 0, 0], p=0.5),
    dict(type="RandomRotate", angle=[-1 / 64, 1 / 64], axis="x", p=0.5),
    dict(type="RandomRotate", angle=[-1 / 64, 1 / 64], axis="y", p=0.5),
    dict(type="RandomScale", scale=[0.9, 1.1]),
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
    dict(type="SphereCrop", point_max=102400, mode="random"),
    dict(type="CenterShift", apply_z=False),
    dict(type="ToTensor"),
    dict(type="Collect", keys=("coord", "grid_coord", "segment", "name"), feat_keys=feat_keys),
]

val_transform = [
    dict(type="CenterShift", apply_z=True),
    dict(type="Copy", keys_dict=dict(segment="origin_segment")),
    dict(
        type="GridSample",
        grid_size=grid_size,
        hash_type="fnv",
        mode="train",
        return_grid_coord=True,
        return_inverse=True,
    ),
    dict(type="CenterShift", apply_z=False),
    dict(type="ToTensor"),
    dict(
        type="Collect",
        keys=("coord", "grid_coord", "segment", "origin_segment", "inverse", "name"),
        feat_keys=feat_keys,
    ),
]

test_transform = [
    dict(type="CenterShift", apply_z=True),
]
test_post_transform = [
    dict(type="CenterShift", apply_z=False),
    dict(type="ToTensor"),
    dict(type="Collect", keys=("coord", "grid_coord", "index"), feat_keys=feat_keys),
]

data = dict(
    train=dict(transform=train_transform),
    val=dict(transform=val_transform),
    test=dict(
        transform=test_transform,
        test_cfg=dict(post_transform=test_post_transform),
    ),
)
