"""
DOS pretraining on nuScenes, SemanticKITTI and Waymo together with PTv3 on one GPU of 24 GB.

Batch: 24 scenes a step, 3 at a time with gradients of 8 batches accumulated. The softmaps of a loss
hold the points of 3 scenes, not of 24.
Length: 20 epochs, 59,125 steps, as with two GPUs.
Memory: about 13 GB, an estimate from above, see pretrain-dos-v1m1-0-outdoor.py.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 1 -d dos -c pretrain-dos-v1m1-3-outdoor-1gpu -n NAME
Probe and fine-tune: see pretrain-dos-v1m1-0-outdoor.py.
"""

_base_ = ["pretrain-dos-v1m1-0-outdoor.py"]

save_path = "exp/dos/pretrain-dos-v1m1-3-outdoor-1gpu"
batch_size = 3
gradient_accumulation_steps = 8
num_worker = 8
