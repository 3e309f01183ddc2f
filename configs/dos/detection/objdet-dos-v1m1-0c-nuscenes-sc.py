"""
CenterPoint of MMDetection3D on nuScenes with PTv3 from random weights.

The row to hold DOS against: same network, same recipe, no pretraining. The stock CenterPoint
differs in its backbone as well.
"""

_base_ = ["_base_nuscenes.py"]
