"""Zipf-Sinkhorn with alpha 2.0."""

_base_ = ["_base_.py"]

model = dict(sinkhorn=dict(alpha=2.0))
