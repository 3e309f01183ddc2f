"""
Fine-tuning of DOS on SemanticKITTI: all of PTv3 is trained.

Weights: pretrain-dos-v1m1-0-semantic-kitti; --options hooks.1.branch=teacher takes its teacher.
Recipe: there is no PTv3 for SemanticKITTI in the host: its PTv3 for nuScenes (AdamW 0.002, blocks
0.0002, 50 epochs, batch 12, Mix3D 0.8) with the classes, weights and augmentation of its SpUNet for
SemanticKITTI.
Differs: PT-v3m2 in the size of the pretraining with a light decoder, in place of PT-v3m1. Points
are not clamped to a box.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c semseg-dos-v1m1-0c-semantic-kitti-ft -n NAME
The file named by weight, or the one that -w FILE names, is loaded or the run stops.
"""

_base_ = [
    "_base_/semseg-runtime.py",
    "_base_/semseg-pt-v3m2-ft.py",
    "_base_/semseg-semantic-kitti.py",
    "_base_/semseg-recipe-lidar-blocks.py",
]

weight = "exp/dos/pretrain-dos-v1m1-0-semantic-kitti/model/model_last.pth"
save_path = "exp/dos/semseg-dos-v1m1-0c-semantic-kitti-ft"

model = dict(
    num_classes={{_base_.num_classes}},
    criteria={{_base_.criteria}},
    backbone=dict(in_channels={{_base_.in_channels}}),
)
