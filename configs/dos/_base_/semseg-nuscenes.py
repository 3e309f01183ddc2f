"""nuScenes-lidarseg: 28,130 scans of train, 6,019 of val, 16 classes."""

_base_ = ["semseg-lidar.py"]

num_classes = 16
criteria = [
    dict(type="CrossEntropyLoss", loss_weight=1.0, ignore_index=-1),
    dict(type="LovaszLoss", mode="multiclass", loss_weight=1.0, ignore_index=-1),
]

data = dict(
    num_classes=num_classes,
    ignore_index=-1,
    names=[
        "barrier",
        "bicycle",
        "bus",
        "car",
        "construction_vehicle",
        "motorcycle",
        "pedestrian",
        "traffic_cone",
        "trailer",
        "truck",
        "driveable_surface",
        "other_flat",
        "sidewalk",
        "terrain",
        "manmade",
        "vegetation",
    ],
    train=dict(
        type="NuScenesDataset",
        split="train",
        data_root="data/nuscenes",
        transform={{_base_.train_transform}},
        test_mode=False,
        loop=1,
        ignore_index=-1,
    ),
    val=dict(
        type="NuScenesDataset",
        split="val",
        data_root="data/nuscenes",
        transform={{_base_.val_transform}},
        test_mode=False,
        ignore_index=-1,
    ),
    test=dict(
        type="NuScenesDataset",
        split="val",
        data_root="data/nuscenes",
        transform={{_base_.test_transform}},
        test_mode=True,
        test_cfg=dict(
            voxelize={{_base_.test_voxelize}},
            crop=None,
            post_transform={{_base_.test_post_transform}},
            aug_transform={{_base_.test_scales_and_flips}},
        ),
        ignore_index=-1,
    ),
)
