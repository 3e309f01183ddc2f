"""
DOS pretraining on Waymo with SpUNet.

Batch: 24 scenes a step, 12 on each of two GPUs.
Length: 60 epochs of 23,691 labelled training frames, 59,220 steps. Our reading: the paper gives its
cost, 20 hours on two A100, and neither of these numbers.
Memory: about 12 GB a GPU, an estimate from above: 20 kB for each point that the student
sees (views of 46,000 points on average, 14,000 visible) and 5 GB for parameters, optimizer, teacher
and loss.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c pretrain-dos-v1m1-1-waymo-spunet -n NAME
Probe and fine-tune: semseg-dos-v1m1-1a-waymo-spunet-lin and semseg-dos-v1m1-1c-waymo-spunet-ft take
the checkpoint:
    sh scripts/train.sh -g 2 -d dos -c CONFIG -n OTHER -w exp/dos/NAME/model/model_last.pth
"""

_base_ = ["_base_/runtime.py", "_base_/spunet.py", "_base_/waymo.py"]

# misc custom setting
save_path = "exp/dos/pretrain-dos-v1m1-1-waymo-spunet"
batch_size = 24  # total batch size in all gpus
num_worker = 24  # total workers in all gpus

model = dict(backbone=dict(in_channels=4))

# scheduler settings
epoch = 60
eval_epoch = 60
