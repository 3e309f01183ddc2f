"""
Linear probe of DOS on ScanNet v2: one linear layer on the frozen SpUNet.

Weights: pretrain-dos-v1m1-1-scannet-spunet; --options hooks.1.branch=teacher takes its teacher.
Recipe: that of our PTv3 probe: AdamW 0.002, 800 epochs, batch 24, Mix3D 0.8.
Differs: the host has no probe of SpUNet. Frozen is in eval mode: statistics of BatchNorm stay those
of the pretraining.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c semseg-dos-v1m1-1a-scannet-spunet-lin -n NAME
The file named by weight, or the one that -w FILE names, is loaded or the run stops.
"""

_base_ = [
    "_base_/semseg-runtime.py",
    "_base_/semseg-spunet-lin.py",
    "_base_/semseg-scannet.py",
    "_base_/semseg-recipe-scannet.py",
]

weight = "exp/dos/pretrain-dos-v1m1-1-scannet-spunet/model/model_last.pth"
save_path = "exp/dos/semseg-dos-v1m1-1a-scannet-spunet-lin"
clip_grad = None  # as for the other SpUNets

model = dict(
    num_classes={{_base_.num_classes}},
    criteria={{_base_.criteria}},
    backbone=dict(in_channels={{_base_.in_channels}}),
)
