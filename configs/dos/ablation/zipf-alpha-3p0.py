"""Zipf-Sinkhorn with alpha 3.0."""

_base_ = ["_base_.py"]

model = dict(sinkhorn=dict(alpha=3.0))
