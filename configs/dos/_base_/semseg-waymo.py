"""Waymo: 23,691 labelled frames of training, 5,976 of validation, 22 classes."""

_base_ = ["semseg-lidar.py"]

num_classes = 22
criteria = [
    dict(type="CrossEntropyLoss", loss_weight=1.0, ignore_index=-1),
    dict(type="LovaszLoss", mode="multiclass", loss_weight=1.0, ignore_index=-1),
]

data = dict(
    num_classes=num_classes,
    ignore_index=-1,
    names=[
        "Car",
        "Truck",
        "Bus",
        "Other Vehicle",
        "Motorcyclist",
        "Bicyclist",
        "Pedestrian",
        "Sign",
        "Traffic Light",
        "Pole",
        "Construction Cone",
        "Bicycle",
        "Motorcycle",
        "Building",
        "Vegetation",
        "Tree Trunk",
        "Curb",
        "Road",
        "Lane Marker",
        "Other Ground",
        "Walkable",
        "Sidewalk",
    ],
    train=dict(
        type="WaymoDataset",
        split="training",
        data_root="data/waymo",
        transform={{_base_.train_transform}},
        test_mode=False,
        loop=1,
        ignore_index=-1,
    ),
    val=dict(
        type="WaymoDataset",
        split="validation",
        data_root="data/waymo",
        transform={{_base_.val_transform}},
        test_mode=False,
        ignore_index=-1,
    ),
    test=dict(
        type="WaymoDataset",
        split="validation",
        data_root="data/waymo",
        transform={{_base_.test_transform}},
        test_mode=True,
        test_cfg=dict(
            voxelize={{_base_.test_voxelize}},
            crop=None,
            post_transform={{_base_.test_post_transform}},
            aug_transform={{_base_.test_rotations}},
        ),
        ignore_index=-1,
    ),
)
