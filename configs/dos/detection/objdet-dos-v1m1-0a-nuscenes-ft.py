"""
Fine-tuning of DOS for detection on nuScenes: CenterPoint of MMDetection3D, all labels.

Weights: pretrain-dos-v1m1-0-nuscenes. The time of a sweep is a channel more than it had.
Recipe: the stock CenterPoint's; layers of the backbone learn the slower the deeper they lie.
Run, in an environment of docs/detection.md:
    bash tools/dist_train.sh CONFIG 8
"""

_base_ = ["_base_nuscenes.py"]

model = dict(
    pts_middle_encoder=dict(
        checkpoint="exp/dos/pretrain-dos-v1m1-0-nuscenes/model/model_last.pth",
        added_channels=1,
    )
)
optim_wrapper = dict(
    constructor="DOSOptimWrapperConstructor", paramwise_cfg=dict(layer_decay=0.9)
)  # our reading: the pretraining's own decay
