"""
What all rows of the ablation share: the demo's tiny PTv3 and synthetic streets, on one process,
with fewer steps and therefore a higher learning rate and a teacher that follows faster.

Every other file here changes one thing of it. On other data: copy this folder, and let the copy of
this file name another pretraining config and its budget; the rows stay as they are.

    dos-plugin ablate
"""

_base_ = ["../pretrain-dos-v1m1-9-demo.py"]

batch_size = 2  # scenes a step
num_worker = 1
epoch = 8  # 80 steps each
eval_epoch = 8
model = dict(momentum_base=0.99)
optimizer = dict(lr=0.002)
scheduler = dict(max_lr=0.002)
