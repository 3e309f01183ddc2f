"""Recipe of the host's SpUNet for ScanNet, trained on from MSC; the log as with Sonata's."""

batch_size = 48  # total batch size in all gpus
num_worker = 24  # total workers in all gpus
mix_prob = 0.8
clip_grad = None

# scheduler settings
epoch = 800
eval_epoch = 100
base_lr = 0.05
param_dicts = []
optimizer = dict(type="SGD", lr=base_lr, momentum=0.9, weight_decay=0.0001, nesterov=True)
scheduler = dict(
    type="OneCycleLR",
    max_lr=[base_lr],
    pct_start=0.05,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=10000.0,
)
