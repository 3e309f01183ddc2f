"""
Fine-tuning of DOS on SemanticKITTI: all of SpUNet is trained.

Weights: pretrain-dos-v1m1-1-semantic-kitti-spunet; --options hooks.1.branch=teacher takes its
teacher.
Recipe: the host's SpUNet for SemanticKITTI: AdamW 0.002, 50 epochs, batch 12, Mix3D 0.8.
Differs: Lovasz loss beside cross entropy, as PTv3; points are not clamped.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c semseg-dos-v1m1-1c-semantic-kitti-spunet-ft -n NAME
The file named by weight, or the one that -w FILE names, is loaded or the run stops.
"""

_base_ = [
    "_base_/semseg-runtime.py",
    "_base_/semseg-spunet-ft.py",
    "_base_/semseg-semantic-kitti.py",
    "_base_/semseg-recipe-lidar.py",
]

weight = "exp/dos/pretrain-dos-v1m1-1-semantic-kitti-spunet/model/model_last.pth"
save_path = "exp/dos/semseg-dos-v1m1-1c-semantic-kitti-spunet-ft"

model = dict(
    num_classes={{_base_.num_classes}},
    criteria={{_base_.criteria}},
    backbone=dict(in_channels={{_base_.in_channels}}),
)
