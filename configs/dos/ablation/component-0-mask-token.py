"""Mask tokens at masked positions, all points in the loss, clustering targets."""

_base_ = ["_base_.py"]

model = dict(
    student_input="mask_token",
    backbone=dict(mask_token=True),
    target="clustering",
    sinkhorn=dict(alpha=0.0),
)
