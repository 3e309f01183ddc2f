"""ScanNet v2: 1,201 scenes of train, 312 of val, 20 classes."""

_base_ = ["semseg-indoor.py"]

num_classes = 20
criteria = [
    dict(type="CrossEntropyLoss", loss_weight=1.0, ignore_index=-1),
    dict(type="LovaszLoss", mode="multiclass", loss_weight=1.0, ignore_index=-1),
]

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
        transform={{_base_.train_transform}},
        test_mode=False,
        loop=1,
        ignore_index=-1,
    ),
    val=dict(
        type="ScanNetDataset",
        split="val",
        data_root="data/scannet",
        transform={{_base_.val_transform}},
        test_mode=False,
        ignore_index=-1,
    ),
    test=dict(
        type="ScanNetDataset",
        split="val",
        data_root="data/scannet",
        transform={{_base_.test_transform}},
        test_mode=True,
        test_cfg=dict(
            voxelize={{_base_.test_voxelize}},
            crop=None,
            post_transform={{_base_.test_post_transform}},
            aug_transform={{_base_.test_rotations_scales_and_flip}},
        ),
        ignore_index=-1,
    ),
)
