"""
CenterPoint of MMDetection3D on a frozen DOS backbone, one sweep, one epoch: does it run?

Weights: pretrain-dos-v1m1-0-nuscenes, with its own features: no sweeps, so no time.
Run on one GPU:
    python tools/train.py CONFIG
"""

_base_ = ["_base_nuscenes.py"]

train_pipeline = [
    dict(step, use_dim=[0, 1, 2, 3]) if step["type"].startswith("LoadPointsFromFile") else step
    for step in _base_.train_pipeline
    if step["type"] not in ("LoadPointsFromMultiSweeps", "ObjectSample")
]
test_pipeline = [
    dict(step, use_dim=[0, 1, 2, 3]) if step["type"].startswith("LoadPointsFromFile") else step
    for step in _base_.test_pipeline
    if step["type"] != "LoadPointsFromMultiSweeps"
]
model = dict(
    data_preprocessor=dict(columns=["strength"], features=["coord", "strength"]),
    pts_voxel_encoder=dict(num_features=4),
    pts_middle_encoder=dict(
        backbone=dict(in_channels=4),
        features=["coord", "strength"],
        checkpoint="exp/dos/pretrain-dos-v1m1-0-nuscenes/model/model_last.pth",
        freeze=True,
    ),
)
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
train_cfg = dict(max_epochs=1, val_interval=1)
param_scheduler = []
