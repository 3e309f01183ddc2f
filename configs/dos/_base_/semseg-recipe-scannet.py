"""Recipe of the host's Sonata for ScanNet and ScanNet200, for linear probes.

The log counts 100 epochs of 8 passes.
"""

batch_size = 24  # total batch size in all gpus
num_worker = 24  # total workers in all gpus
mix_prob = 0.8
clip_grad = 3.0

# scheduler settings
epoch = 800
eval_epoch = 100
base_lr = 0.002
param_dicts = []  # a list, and not None, leaves frozen parameters out
optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.02)
scheduler = dict(
    type="OneCycleLR",
    max_lr=[base_lr],
    pct_start=0.05,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=1000.0,
)
