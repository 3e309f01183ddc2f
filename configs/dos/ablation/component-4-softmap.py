"""Observable points only, softmaps with a uniform prior in place of clustering."""

_base_ = ["_base_.py"]

model = dict(sinkhorn=dict(alpha=0.0))
