"""
Decoder probe of the demo's pretraining, small enough for a laptop without GPU: a decoder on
the frozen encoder.

On the embedded host, or in a Pointcept checkout (`python` alone where there is CUDA):
    python -m dos_plugin.minihost --config-file configs/dos/semseg-dos-v1m1-9b-demo-dec.py
    python -m dos_plugin.cpu tools/train.py --config-file configs/dos/semseg-dos-v1m1-9b-demo-dec.py
"""

_base_ = ["_base_/semseg-demo.py"]

save_path = "exp/dos/demo-dec"

model = dict(
    backbone_out_channels=32,
    backbone=dict(
        dec_depths=(1, 1, 1),
        dec_channels=(32, 64, 128),
        dec_num_head=(2, 4, 8),
        dec_patch_size=(128, 128, 128),
        enc_mode=False,
    ),
    freeze_backbone="encoder",
)

base_lr = 0.003
param_dicts = []
optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.01)
scheduler = dict(max_lr=[base_lr])
