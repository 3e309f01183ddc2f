"""SemanticKITTI: 19,130 scans of sequences 00-07, 09 and 10; strength as stored, in [0, 1]."""

_base_ = ["lidar.py"]

data = dict(
    train=dict(
        type="SemanticKITTIDataset",
        split="train",
        data_root="data/semantic_kitti",
        transform={{_base_.transform}},
        test_mode=False,
        loop=1,
    ),
)
