"""Observable points only, clustering targets."""

_base_ = ["_base_.py"]

model = dict(target="clustering", sinkhorn=dict(alpha=0.0))
