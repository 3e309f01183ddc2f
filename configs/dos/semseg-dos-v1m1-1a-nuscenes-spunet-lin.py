"""
Linear probe of DOS on nuScenes: one linear layer on the frozen SpUNet.

Weights: pretrain-dos-v1m1-1-nuscenes-spunet; --options hooks.0.branch=teacher takes its teacher.
Recipe: that of our PTv3 probe: AdamW 0.002, 50 epochs, batch 12, Mix3D 0.8.
Differs: the host has no probe of SpUNet. Frozen is in eval mode: statistics of BatchNorm stay those
of the pretraining.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c semseg-dos-v1m1-1a-nuscenes-spunet-lin -n NAME
The file named by weight, or the one that -w FILE names, is loaded or the run stops.
"""

_base_ = ["_base_/semseg-runtime.py", "_base_/semseg-spunet-lin.py", "_base_/semseg-nuscenes.py"]

# misc custom setting
weight = "exp/dos/pretrain-dos-v1m1-1-nuscenes-spunet/model/model_last.pth"
save_path = "exp/dos/semseg-dos-v1m1-1a-nuscenes-spunet-lin"
batch_size = 12  # total batch size in all gpus
num_worker = 24  # total workers in all gpus
mix_prob = 0.8
clip_grad = None

model = dict(
    num_classes={{_base_.num_classes}},
    criteria={{_base_.criteria}},
    backbone=dict(in_channels={{_base_.in_channels}}),
)

# scheduler settings
epoch = 50
eval_epoch = 50
base_lr = 0.002
param_dicts = []  # a list, and not None, leaves frozen parameters out
optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.005)
scheduler = dict(
    type="OneCycleLR",
    max_lr=[base_lr],
    pct_start=0.04,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=100.0,
)
