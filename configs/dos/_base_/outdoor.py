"""nuScenes, SemanticKITTI and Waymo together: 70,951 scans.

All three give coordinates and strength, but strength does not mean the same in them: the host
divides that of nuScenes by 255, leaves that of SemanticKITTI as stored (0 to 1), and its
preprocessing takes the tanh of Waymo intensities. No calibration is attempted.
"""

_base_ = ["lidar.py"]

data = dict(
    train=dict(
        type="ConcatDataset",
        datasets=[
            dict(
                type="NuScenesDataset",
                split="train",
                data_root="data/nuscenes",
                transform={{_base_.transform}},
                test_mode=False,
                loop=1,
            ),
            dict(
                type="SemanticKITTIDataset",
                split="train",
                data_root="data/semantic_kitti",
                transform={{_base_.transform}},
                test_mode=False,
                loop=1,
            ),
            dict(
                type="WaymoDataset",
                split="training",
                data_root="data/waymo",
                transform={{_base_.transform}},
                test_mode=False,
                loop=1,
            ),
        ],
        loop=1,
    ),
)
