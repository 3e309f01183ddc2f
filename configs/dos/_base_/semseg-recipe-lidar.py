"""Recipe of the host's PTv3 for nuScenes and Waymo, one rate for all that is trained.

For linear probes, and for SpUNet, which has the same recipe in the host.
"""

batch_size = 12  # total batch size in all gpus
num_worker = 24  # total workers in all gpus
mix_prob = 0.8
clip_grad = None

# scheduler settings
epoch = 50
eval_epoch = 50
base_lr = 0.002
param_dicts = []  # a list, and not None, leaves frozen parameters out
optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.005)
scheduler = dict(
    type="OneCycleLR",
    max_lr=[base_lr],
    pct_start=0.04,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=100.0,
)
