"""
Decoder probe of DOS on ScanNet200: a light decoder on the frozen PTv3 encoder.

Weights: pretrain-dos-v1m1-0-scannet; --options hooks.1.branch=teacher takes its teacher.
Recipe: the host's Sonata: AdamW 0.002, 800 epochs, batch 24, Mix3D 0.8, gradients clipped at 3.
Differs: the frozen encoder is in eval mode (no drop path of 0.3) and orders its points the same way
each time.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 2 -d dos -c semseg-dos-v1m1-0b-scannet200-dec -n NAME
The file named by weight, or the one that -w FILE names, is loaded or the run stops.
"""

_base_ = [
    "_base_/semseg-runtime.py",
    "_base_/semseg-pt-v3m2-dec.py",
    "_base_/semseg-scannet200.py",
    "_base_/semseg-recipe-scannet-blocks.py",
]

weight = "exp/dos/pretrain-dos-v1m1-0-scannet/model/model_last.pth"
save_path = "exp/dos/semseg-dos-v1m1-0b-scannet200-dec"

model = dict(
    num_classes={{_base_.num_classes}},
    criteria={{_base_.criteria}},
    backbone=dict(in_channels={{_base_.in_channels}}),
)
