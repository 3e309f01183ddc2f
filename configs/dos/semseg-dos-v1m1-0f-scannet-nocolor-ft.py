"""
Fine-tuning of DOS on ScanNet v2 without colour: all of PTv3 is trained.

Weights: pretrain-dos-v1m1-4-scannet-nocolor; --options hooks.1.branch=teacher takes its teacher.
Recipe: the host's Sonata: AdamW 0.002, 800 epochs, batch 24, Mix3D 0.8, gradients clipped at 3.
Differs: the loader, which stops where weights do not fit. Features are coordinates and normals.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c semseg-dos-v1m1-0f-scannet-nocolor-ft -n NAME
The file named by weight, or the one that -w FILE names, is loaded or the run stops.
"""

_base_ = [
    "_base_/semseg-runtime.py",
    "_base_/semseg-pt-v3m2-ft.py",
    "_base_/semseg-scannet-nocolor.py",
    "_base_/semseg-recipe-scannet-blocks.py",
]

weight = "exp/dos/pretrain-dos-v1m1-4-scannet-nocolor/model/model_last.pth"
save_path = "exp/dos/semseg-dos-v1m1-0f-scannet-nocolor-ft"

model = dict(
    num_classes={{_base_.num_classes}},
    criteria={{_base_.criteria}},
    backbone=dict(in_channels={{_base_.in_channels}}),
)
