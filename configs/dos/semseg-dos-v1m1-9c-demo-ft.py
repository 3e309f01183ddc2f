"""
Fine-tuning of the demo's pretraining, small enough for a laptop without GPU: encoder and decoder
are trained.

On the embedded host, or in a Pointcept checkout (`python` alone where there is CUDA):
    python -m dos_plugin.minihost --config-file configs/dos/semseg-dos-v1m1-9c-demo-ft.py
    python -m dos_plugin.cpu tools/train.py --config-file configs/dos/semseg-dos-v1m1-9c-demo-ft.py
"""

_base_ = ["semseg-dos-v1m1-9b-demo-dec.py"]

save_path = "exp/dos/demo-ft"

model = dict(freeze_backbone=False)  # the rest as in the decoder probe

base_lr = 0.003
param_dicts = [dict(keyword="backbone.enc", lr=base_lr / 10)]
scheduler = dict(max_lr=[base_lr, base_lr / 10])
