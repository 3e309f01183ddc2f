"""Zipf-Sinkhorn with alpha 1.0."""

_base_ = ["_base_.py"]

model = dict(sinkhorn=dict(alpha=1.0))
