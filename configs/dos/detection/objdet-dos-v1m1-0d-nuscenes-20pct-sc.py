"""
CenterPoint of MMDetection3D on 20 % of nuScenes with PTv3 from random weights.

As objdet-dos-v1m1-0c-nuscenes-sc, on the scans of objdet-dos-v1m1-0b-nuscenes-20pct-ft.
"""

_base_ = ["_base_20pct.py"]
