"""
Decoder probe of DOS on Waymo: a light decoder on the frozen PTv3 encoder.

Weights: pretrain-dos-v1m1-0-waymo; --options hooks.0.branch=teacher takes its teacher.
Recipe: the host's PTv3 for Waymo: AdamW 0.002 (blocks 0.0002), 50 epochs, batch 12, Mix3D 0.8.
Differs: the host's outdoor decoder probes (Utonia) have 9 channels with colour and normals, and
drop path on in the frozen encoder; here coordinates and strength, an encoder in eval mode, and 5 cm
as in pretraining. Points are not clamped to a box.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c semseg-dos-v1m1-0b-waymo-dec -n NAME
The file named by weight, or the one that -w FILE names, is loaded or the run stops.
"""

_base_ = ["_base_/semseg-runtime.py", "_base_/semseg-pt-v3m2-dec.py", "_base_/semseg-waymo.py"]

# misc custom setting
weight = "exp/dos/pretrain-dos-v1m1-0-waymo/model/model_last.pth"
save_path = "exp/dos/semseg-dos-v1m1-0b-waymo-dec"
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
param_dicts = [dict(keyword="block", lr=base_lr / 10)]
optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.005)
scheduler = dict(
    type="OneCycleLR",
    max_lr=[base_lr, base_lr / 10],
    pct_start=0.04,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=100.0,
)
