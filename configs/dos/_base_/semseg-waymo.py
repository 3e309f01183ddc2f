"""Waymo: 23,691 labelled frames of training, 5,976 of validation, 22 classes.

Transforms, losses and the rest of data: semseg-lidar.py.
"""

_base_ = ["semseg-lidar.py"]

num_classes = 22

data = dict(
    num_classes=num_classes,
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
    train=dict(type="WaymoDataset", split="training", data_root="data/waymo"),
    val=dict(type="WaymoDataset", split="validation", data_root="data/waymo"),
    test=dict(type="WaymoDataset", split="validation", data_root="data/waymo"),
)
