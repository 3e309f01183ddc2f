"""Observable points only, feature regression in place of clustering."""

_base_ = ["_base_.py"]

model = dict(target="regression")
