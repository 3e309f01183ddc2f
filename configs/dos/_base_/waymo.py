"""Waymo: 23,691 labelled frames of the train split; strength is the tanh of the intensity."""

_base_ = ["lidar.py"]

data = dict(
    train=dict(
        type="WaymoDataset",
        split="training",
        data_root="data/waymo",
        transform={{_base_.transform}},
        test_mode=False,
        loop=1,
    ),
)
