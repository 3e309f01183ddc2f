"""Zipf-Sinkhorn with alpha 0.7."""

_base_ = ["_base_.py"]

model = dict(sinkhorn=dict(alpha=0.7))
