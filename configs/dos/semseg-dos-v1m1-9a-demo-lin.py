"""
Linear probe of the demo's pretraining, small enough for a laptop without GPU: one linear layer on
the frozen encoder.

On the embedded host, or in a Pointcept checkout (`python` alone where there is CUDA):
    python -m dos_plugin.minihost --config-file configs/dos/semseg-dos-v1m1-9a-demo-lin.py
    python -m dos_plugin.cpu tools/train.py --config-file configs/dos/semseg-dos-v1m1-9a-demo-lin.py
"""

_base_ = ["_base_/semseg-demo.py"]

save_path = "exp/dos/demo-lin"

model = dict(
    backbone_out_channels=416,  # 32 + 64 + 128 + 192
    backbone=dict(enc_mode=True),
    freeze_backbone=True,
)

base_lr = 0.01
param_dicts = []
optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.0)
scheduler = dict(max_lr=[base_lr])
