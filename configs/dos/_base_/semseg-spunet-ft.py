"""Fine-tuning of SpUNet, encoder and decoder."""

_base_ = ["semseg-spunet-lin.py"]

model = dict(freeze_backbone=False)
