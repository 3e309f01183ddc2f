"""
Decoder probe of DOS on nuScenes: a light decoder on the frozen PTv3 encoder.

Weights: pretrain-dos-v1m1-0-nuscenes; --options hooks.1.branch=teacher takes its teacher.
Recipe: the host's PTv3 for nuScenes: AdamW 0.002 (blocks 0.0002), 50 epochs, batch 12, Mix3D 0.8.
Differs: the host's outdoor decoder probes (Utonia) have 9 channels with colour and normals, and
drop path on in the frozen encoder; here coordinates and strength, an encoder in eval mode, and 5 cm
as in pretraining.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c semseg-dos-v1m1-0b-nuscenes-dec -n NAME
The file named by weight, or the one that -w FILE names, is loaded or the run stops.
"""

_base_ = [
    "_base_/semseg-runtime.py",
    "_base_/semseg-pt-v3m2-dec.py",
    "_base_/semseg-nuscenes.py",
    "_base_/semseg-recipe-lidar-blocks.py",
]

weight = "exp/dos/pretrain-dos-v1m1-0-nuscenes/model/model_last.pth"
save_path = "exp/dos/semseg-dos-v1m1-0b-nuscenes-dec"

model = dict(
    num_classes={{_base_.num_classes}},
    criteria={{_base_.criteria}},
    backbone=dict(in_channels={{_base_.in_channels}}),
)
