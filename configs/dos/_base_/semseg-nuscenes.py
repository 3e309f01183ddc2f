"""nuScenes-lidarseg: 28,130 scans of train, 6,019 of val, 16 classes.

Transforms, losses and the rest of data: semseg-lidar.py.
"""

_base_ = ["semseg-lidar.py"]

num_classes = 16

data = dict(
    num_classes=num_classes,
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
    train=dict(type="NuScenesDataset", split="train", data_root="data/nuscenes"),
    val=dict(type="NuScenesDataset", split="val", data_root="data/nuscenes"),
    test=dict(
        type="NuScenesDataset",
        split="val",
        data_root="data/nuscenes",
        test_cfg=dict(aug_transform={{_base_.test_scales_and_flips}}),
    ),
)
