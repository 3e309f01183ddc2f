"""
Fine-tuning of DOS for detection on nuScenes with SpUNet.

Weights: pretrain-dos-v1m1-1-nuscenes-spunet. The features are those of its decoder at every voxel,
averaged over the cells of the map.
"""

_base_ = ["_base_nuscenes.py"]

model = dict(
    pts_middle_encoder=dict(
        backbone=dict(
            _delete_=True,
            type="SpUNet-v1m1",
            in_channels=5,
            num_classes=0,
            channels=(32, 64, 128, 256, 256, 128, 96, 96),
            layers=(2, 3, 4, 6, 2, 2, 2, 2),
        ),
        checkpoint="exp/dos/pretrain-dos-v1m1-1-nuscenes-spunet/model/model_last.pth",
        added_channels=1,
    )
)
optim_wrapper = dict(constructor="DOSOptimWrapperConstructor", paramwise_cfg=dict(layer_decay=0.9))
