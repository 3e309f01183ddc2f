"""Recipe of the host's PTv3 for nuScenes and Waymo: a tenth of the rate for transformer blocks."""

_base_ = ["semseg-recipe-lidar.py"]

base_lr = 0.002
param_dicts = [dict(keyword="block", lr=base_lr / 10)]
scheduler = dict(max_lr=[base_lr, base_lr / 10])
