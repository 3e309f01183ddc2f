"""
DOS pretraining on nuScenes with PTv3, mode 1.

Batch: 24 scenes a step, 12 on each of two GPUs.
Length: 50 epochs of 28,130 training scans, 58,600 steps. Our reading: the paper gives its cost, 20
hours on two A100, and neither of these numbers.
Memory: about 13 GB a GPU, an estimate from above: 60 kB for each point that the student
sees (about 30,000 points a scan, 6,000 of a view visible on average) and 4 GB for parameters,
optimizer, teacher and loss.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c pretrain-dos-v1m1-2-nuscenes-pt-v3m1 -n NAME
Fine-tune: no segmentation config here has PT-v3m1. The encoder is that of the host's
semseg-pt-v3m1-0-base for nuScenes; how it takes the checkpoint is in docs/pointcept.md, under
"Fine-tune or probe".
"""

_base_ = ["_base_/runtime.py", "_base_/pt-v3m1.py", "_base_/nuscenes.py"]

# misc custom setting
save_path = "exp/dos/pretrain-dos-v1m1-2-nuscenes-pt-v3m1"
batch_size = 24  # total batch size in all gpus
num_worker = 24  # total workers in all gpus

model = dict(backbone=dict(in_channels=4))

# scheduler settings
epoch = 50
eval_epoch = 50
