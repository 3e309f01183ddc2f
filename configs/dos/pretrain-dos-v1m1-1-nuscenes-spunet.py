"""
DOS pretraining on nuScenes with SpUNet.

Batch: 24 scenes a step, 12 on each of two GPUs.
Length: 50 epochs of 28,130 training scans, 58,600 steps. Our reading: the paper gives its cost, 20
hours on two A100, and neither of these numbers.
Memory: about 8 GB a GPU, an estimate from above: 20 kB for each point that the student sees
(about 30,000 points a scan, 6,000 of a view visible on average) and 5 GB for parameters, optimizer,
teacher and loss.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c pretrain-dos-v1m1-1-nuscenes-spunet -n NAME
Probe and fine-tune: semseg-dos-v1m1-1a-nuscenes-spunet-lin and
semseg-dos-v1m1-1c-nuscenes-spunet-ft take the checkpoint:
    sh scripts/train.sh -g 2 -d dos -c CONFIG -n OTHER -w exp/dos/NAME/model/model_last.pth
"""

_base_ = ["_base_/runtime.py", "_base_/spunet.py", "_base_/nuscenes.py"]

# misc custom setting
save_path = "exp/dos/pretrain-dos-v1m1-1-nuscenes-spunet"
batch_size = 24  # total batch size in all gpus
num_worker = 24  # total workers in all gpus

model = dict(backbone=dict(in_channels=4))

# scheduler settings
epoch = 50
eval_epoch = 50
