"""Recipe of the host's Sonata for ScanNet and ScanNet200: a tenth of the rate for blocks."""

_base_ = ["semseg-recipe-scannet.py"]

base_lr = 0.002
param_dicts = [dict(keyword="block", lr=base_lr / 10)]
scheduler = dict(max_lr=[base_lr, base_lr / 10])
