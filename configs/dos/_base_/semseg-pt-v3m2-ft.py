"""Fine-tuning: encoder of pt-v3m2.py and light decoder of the host's Sonata, all trained."""

_base_ = ["semseg-pt-v3m2-dec.py"]

model = dict(freeze_backbone=False)
