"""
Fine-tuning of DOS on ScanNet200: all of SpUNet is trained.

Weights: pretrain-dos-v1m1-1-scannet-spunet; --options hooks.0.branch=teacher takes its teacher.
Recipe: the host's SpUNet for ScanNet, trained on from MSC: SGD 0.05, 800 epochs, batch 48, Mix3D
0.8.
Differs: Lovasz loss beside cross entropy; features with normals, as in pretraining.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c semseg-dos-v1m1-1c-scannet200-spunet-ft -n NAME
The file named by weight, or the one that -w FILE names, is loaded or the run stops.
"""

_base_ = ["_base_/semseg-runtime.py", "_base_/semseg-spunet-ft.py", "_base_/semseg-scannet200.py"]

# misc custom setting
weight = "exp/dos/pretrain-dos-v1m1-1-scannet-spunet/model/model_last.pth"
save_path = "exp/dos/semseg-dos-v1m1-1c-scannet200-spunet-ft"
batch_size = 48  # total batch size in all gpus
num_worker = 24  # total workers in all gpus
mix_prob = 0.8
clip_grad = None

model = dict(
    num_classes={{_base_.num_classes}},
    criteria={{_base_.criteria}},
    backbone=dict(in_channels={{_base_.in_channels}}),
)

# scheduler settings
epoch = 800
eval_epoch = 100
base_lr = 0.05
param_dicts = []
optimizer = dict(type="SGD", lr=base_lr, momentum=0.9, weight_decay=0.0001, nesterov=True)
scheduler = dict(
    type="OneCycleLR",
    max_lr=[base_lr],
    pct_start=0.05,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=10000.0,
)
