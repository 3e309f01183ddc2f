"""
Linear probe of DOS on Waymo: one linear layer on the frozen PTv3 encoder.

Weights: pretrain-dos-v1m1-0-waymo; --options hooks.1.branch=teacher takes its teacher.
Recipe: the host's PTv3 for Waymo: AdamW 0.002, 50 epochs, batch 12, Mix3D 0.8.
Differs: the host's outdoor probes (Utonia, Concerto) have 9 channels with colour and normals, and
drop path on; here coordinates and strength, an encoder in eval mode that orders its points the same
way each time, and 5 cm as in pretraining. Points are not clamped to a box.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c semseg-dos-v1m1-0a-waymo-lin -n NAME
The file named by weight, or the one that -w FILE names, is loaded or the run stops.
"""

_base_ = [
    "_base_/semseg-runtime.py",
    "_base_/semseg-pt-v3m2-lin.py",
    "_base_/semseg-waymo.py",
    "_base_/semseg-recipe-lidar.py",
]

weight = "exp/dos/pretrain-dos-v1m1-0-waymo/model/model_last.pth"
save_path = "exp/dos/semseg-dos-v1m1-0a-waymo-lin"

model = dict(
    num_classes={{_base_.num_classes}},
    criteria={{_base_.criteria}},
    backbone=dict(in_channels={{_base_.in_channels}}),
)
