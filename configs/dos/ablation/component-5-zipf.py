"""Observable softmaps with Zipf-Sinkhorn, alpha 1.3: DOS."""

_base_ = ["_base_.py"]

model = dict(sinkhorn=dict(alpha=1.3))
