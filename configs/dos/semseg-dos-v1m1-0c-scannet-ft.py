"""
Fine-tuning of DOS on ScanNet v2: all of PTv3 is trained.

Weights: pretrain-dos-v1m1-0-scannet; --options hooks.0.branch=teacher takes its teacher.
Recipe: the host's Sonata: AdamW 0.002, 800 epochs, batch 24, Mix3D 0.8, gradients clipped at 3.
Differs: the loader, which stops where weights do not fit.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c semseg-dos-v1m1-0c-scannet-ft -n NAME
The file named by weight, or the one that -w FILE names, is loaded or the run stops.
"""

_base_ = ["_base_/semseg-runtime.py", "_base_/semseg-pt-v3m2-ft.py", "_base_/semseg-scannet.py"]

# misc custom setting
weight = "exp/dos/pretrain-dos-v1m1-0-scannet/model/model_last.pth"
save_path = "exp/dos/semseg-dos-v1m1-0c-scannet-ft"
batch_size = 24  # total batch size in all gpus
num_worker = 24  # total workers in all gpus
mix_prob = 0.8
clip_grad = 3.0

model = dict(
    num_classes={{_base_.num_classes}},
    criteria={{_base_.criteria}},
    backbone=dict(in_channels={{_base_.in_channels}}),
)

# scheduler settings
epoch = 800
eval_epoch = 100
base_lr = 0.002
param_dicts = [dict(keyword="block", lr=base_lr / 10)]
optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.02)
scheduler = dict(
    type="OneCycleLR",
    max_lr=[base_lr, base_lr / 10],
    pct_start=0.05,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=1000.0,
)
