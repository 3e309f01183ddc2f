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
    type="DOS-Segmentor-v1m1",
    num_classes=15,
    backbone_out_channels=32,
    criteria={{_base_.criteria}},
    backbone=dict(
        type="PT-v3m2",
        in_channels=2,  # strength, height
        order=("z", "z-trans", "hilbert", "hilbert-trans"),
        stride=(2, 2, 2),
        enc_depths=(1, 1, 1, 1),
        enc_channels=(32, 64, 128, 192),
        enc_num_head=(2, 4, 8, 12),
        enc_patch_size=(128, 128, 128, 128),
        dec_depths=(1, 1, 1),
        dec_channels=(32, 64, 128),
        dec_num_head=(2, 4, 8),
        dec_patch_size=(128, 128, 128),
        mlp_ratio=2,
        qkv_bias=True,
        qk_scale=None,
        attn_drop=0.0,
        proj_drop=0.0,
        drop_path=0.0,
        shuffle_orders=True,
        pre_norm=True,
        enable_rpe=False,
        enable_flash=False,
        upcast_attention=False,
        upcast_softmax=False,
        enc_mode=False,
    ),
    freeze_backbone="encoder",
)

base_lr = 0.003
param_dicts = []
optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.01)
scheduler = dict(
    type="OneCycleLR",
    max_lr=[base_lr],
    pct_start=0.05,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=100.0,
)
