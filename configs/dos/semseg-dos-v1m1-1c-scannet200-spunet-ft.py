"""
Fine-tuning of DOS on ScanNet200: all of SpUNet is trained.

Weights: pretrain-dos-v1m1-1-scannet-spunet; --options hooks.1.branch=teacher takes its teacher.
Recipe: the host's SpUNet for ScanNet, trained on from MSC: SGD 0.05, 800 epochs, batch 48, Mix3D
0.8.
Differs: Lovasz loss beside cross entropy; features with normals, as in pretraining.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c semseg-dos-v1m1-1c-scannet200-spunet-ft -n NAME
The file named by weight, or the one that -w FILE names, is loaded or the run stops.
"""

_base_ = [
    "_base_/semseg-runtime.py",
    "_base_/semseg-spunet-ft.py",
    "_base_/semseg-scannet200.py",
    "_base_/semseg-recipe-scannet-sgd.py",
]

weight = "exp/dos/pretrain-dos-v1m1-1-scannet-spunet/model/model_last.pth"
save_path = "exp/dos/semseg-dos-v1m1-1c-scannet200-spunet-ft"

model = dict(
    num_classes={{_base_.num_classes}},
    criteria={{_base_.criteria}},
    backbone=dict(in_channels={{_base_.in_channels}}),
)
