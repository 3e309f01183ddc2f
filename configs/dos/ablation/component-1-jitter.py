"""Mask tokens whose positions are jittered by half a voxel (as in Sonata), clustering."""

_base_ = ["_base_.py"]

model = dict(
    student_input="mask_token",
    backbone=dict(mask_token=True),
    mask_jitter=0.1,  # metres, half of grid_size
    target="clustering",
    sinkhorn=dict(alpha=0.0),
)
