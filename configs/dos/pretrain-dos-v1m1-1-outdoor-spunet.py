"""
DOS pretraining on nuScenes, SemanticKITTI and Waymo together with SpUNet.

Strength keeps each data set's own scale: nuScenes divided by 255, SemanticKITTI as stored (0 to 1),
Waymo the tanh of the intensity.
Batch: 24 scenes a step, 12 on each of two GPUs.
Length: 20 epochs of 70,951 training scans, 59,120 steps. Our reading: the paper gives its cost, 20
hours on two A100, and neither of these numbers.
Memory: about 10 GB a GPU, an estimate from above: 20 kB for each point that the student
sees (between 6,000 (nuScenes) and 14,000 visible points a view) and 5 GB for parameters, optimizer,
teacher and loss.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c pretrain-dos-v1m1-1-outdoor-spunet -n NAME
Probe and fine-tune: semseg-dos-v1m1-1a-nuscenes-spunet-lin and
semseg-dos-v1m1-1c-nuscenes-spunet-ft, or those of semantic-kitti or waymo, take the checkpoint:
    sh scripts/train.sh -g 2 -d dos -c CONFIG -n OTHER -w exp/dos/NAME/model/model_last.pth
"""

_base_ = ["_base_/runtime.py", "_base_/spunet.py", "_base_/outdoor.py"]

# misc custom setting
save_path = "exp/dos/pretrain-dos-v1m1-1-outdoor-spunet"
batch_size = 24  # total batch size in all gpus
num_worker = 24  # total workers in all gpus

model = dict(backbone=dict(in_channels=4))

# scheduler settings
epoch = 20
eval_epoch = 20
