"""
Fine-tuning of DOS for detection on nuScenes with 20 % of the labels.

As objdet-dos-v1m1-0a-nuscenes-ft; the scans and the pasted objects are a fifth, see _base_20pct.py.
"""

_base_ = ["_base_20pct.py"]

model = dict(
    pts_middle_encoder=dict(
        checkpoint="exp/dos/pretrain-dos-v1m1-0-nuscenes/model/model_last.pth",
        added_channels=1,
    )
)
optim_wrapper = dict(constructor="DOSOptimWrapperConstructor", paramwise_cfg=dict(layer_decay=0.9))
