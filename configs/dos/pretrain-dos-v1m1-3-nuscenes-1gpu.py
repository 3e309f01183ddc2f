"""
DOS pretraining on nuScenes with PTv3 on one GPU of 24 GB.

Batch: 24 scenes a step, 4 at a time with gradients of 6 batches accumulated. The softmaps of a loss
hold the points of 4 scenes, not of 24.
Length: 50 epochs, 58,600 steps, as with two GPUs.
Memory: about 11 GB, an estimate from above, see pretrain-dos-v1m1-0-nuscenes.py.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 1 -d dos -c pretrain-dos-v1m1-3-nuscenes-1gpu -n NAME
Probe and fine-tune: see pretrain-dos-v1m1-0-nuscenes.py.
"""

_base_ = ["pretrain-dos-v1m1-0-nuscenes.py"]

save_path = "exp/dos/pretrain-dos-v1m1-3-nuscenes-1gpu"
batch_size = 4
gradient_accumulation_steps = 6
num_worker = 8
