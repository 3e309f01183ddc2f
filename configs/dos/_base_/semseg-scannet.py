"""ScanNet v2: 1,201 scenes of train, 312 of val, 20 classes.

Voxels and features of scannet.py, transforms of the host's Sonata.
"""

grid_size = 0.02  # metres
in_channels = 9  # coord, color, normal
feat_keys = ("coord", "color", "normal")
num_classes = 20
criteria = [
    dict(type="CrossEntropyLoss", loss_weight=1.0, ignore_index=-1),
    dict(type="LovaszLoss", mode="multiclass", loss_weight=1.0, ignore_index=-1),
]

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
    dict(type="ChromaticAutoContrast", p=0.2, blend_factor=None),
    dict(type="ChromaticTranslation", p=0.95, ratio=0.05),
    dict(type="ChromaticJitter", p=0.95, std=0.05),
    dict(
        type="GridSample",
        grid_size=grid_size,
        hash_type="fnv",
        mode="train",
        return_grid_coord=True,
    ),
    dict(type="SphereCrop", point_max=102400, mode="random"),
    dict(type="CenterShift", apply_z=False),
    dict(type="NormalizeColor"),
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
    dict(type="NormalizeColor"),
    dict(type="ToTensor"),
    dict(
        type="Collect",
        keys=("coord", "grid_coord", "segment", "origin_segment", "inverse", "name"),
        feat_keys=feat_keys,
    ),
]

test_transform = [
    dict(type="CenterShift", apply_z=True),
    dict(type="NormalizeColor"),
]
test_voxelize = dict(
    type="GridSample",
    grid_size=grid_size,
    hash_type="fnv",
    mode="test",
    return_grid_coord=True,
)
test_post_transform = [
    dict(type="CenterShift", apply_z=False),
    dict(type="ToTensor"),
    dict(type="Collect", keys=("coord", "grid_coord", "index"), feat_keys=feat_keys),
]
test_rotations_scales_and_flip = [
    [
        dict(type="RandomRotateTargetAngle", angle=[angle], axis="z", center=[0, 0, 0], p=1),
        *scale,
    ]
    for scale in (
        [],
        [dict(type="RandomScale", scale=[0.95, 0.95])],
        [dict(type="RandomScale", scale=[1.05, 1.05])],
    )
    for angle in (0, 1 / 2, 1, 3 / 2)
]
test_rotations_scales_and_flip.append([dict(type="RandomFlip", p=1)])

data = dict(
    num_classes=num_classes,
    ignore_index=-1,
    names=[
        "wall",
        "floor",
        "cabinet",
        "bed",
        "chair",
        "sofa",
        "table",
        "door",
        "window",
        "bookshelf",
        "picture",
        "counter",
        "desk",
        "curtain",
        "refridgerator",
        "shower curtain",
        "toilet",
        "sink",
        "bathtub",
        "otherfurniture",
    ],
    train=dict(
        type="ScanNetDataset",
        split="train",
        data_root="data/scannet",
        transform=train_transform,
        test_mode=False,
        loop=1,
        ignore_index=-1,
    ),
    val=dict(
        type="ScanNetDataset",
        split="val",
        data_root="data/scannet",
        transform=val_transform,
        test_mode=False,
        ignore_index=-1,
    ),
    test=dict(
        type="ScanNetDataset",
        split="val",
        data_root="data/scannet",
        transform=test_transform,
        test_mode=True,
        test_cfg=dict(
            voxelize=test_voxelize,
            crop=None,
            post_transform=test_post_transform,
            aug_transform=test_rotations_scales_and_flip,
        ),
        ignore_index=-1,
    ),
)
