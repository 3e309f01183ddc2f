"""SemanticKITTI: 19,130 scans of sequences 00-07, 09 and 10 for train, 4,071 of 08 for val.

The host has no PTv3 config for it; data, weights of the classes and test-time augmentation are
those of its SpUNet config. Transforms and the rest of data: semseg-lidar.py.
"""

_base_ = ["semseg-lidar.py"]

num_classes = 19
# fmt: off
class_weight = [  # those of the host
    3.1557, 8.7029, 7.8281, 6.1354, 6.3161, 7.9937, 8.9704, 10.1922, 1.6155, 4.2187,
    1.9385, 5.5455, 2.0198, 2.6261, 1.3212, 5.1102, 2.5492, 5.8585, 7.3929,
]
# fmt: on
criteria = [
    dict(type="CrossEntropyLoss", weight=class_weight, loss_weight=1.0, ignore_index=-1),
    dict(type="LovaszLoss", mode="multiclass", loss_weight=1.0, ignore_index=-1),
]

data = dict(
    num_classes=num_classes,
    names=[
        "car",
        "bicycle",
        "motorcycle",
        "truck",
        "other-vehicle",
        "person",
        "bicyclist",
        "motorcyclist",
        "road",
        "parking",
        "sidewalk",
        "other-ground",
        "building",
        "fence",
        "vegetation",
        "trunk",
        "terrain",
        "pole",
        "traffic-sign",
    ],
    train=dict(type="SemanticKITTIDataset", split="train", data_root="data/semantic_kitti"),
    val=dict(type="SemanticKITTIDataset", split="val", data_root="data/semantic_kitti"),
    test=dict(type="SemanticKITTIDataset", split="val", data_root="data/semantic_kitti"),
)
