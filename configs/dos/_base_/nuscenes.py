"""nuScenes: 28,130 scans of the train split; the host brings strength to [0, 1]."""

_base_ = ["lidar.py"]

data = dict(
    train=dict(
        type="NuScenesDataset",
        split="train",
        data_root="data/nuscenes",
        transform={{_base_.transform}},
        test_mode=False,
        loop=1,
    ),
)
