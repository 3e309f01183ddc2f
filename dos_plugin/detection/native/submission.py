"""Boxes of nuScenes scans as the file that its devkit and its server score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dos_plugin.detection.native.boxes import HEIGHT, LENGTH, VX, WIDTH, YAW, Z
from dos_plugin.detection.native.metric import MOST, Scan

META = dict(use_camera=False, use_lidar=True, use_radar=False, use_map=False, use_external=False)
MOVES = 0.2  # metres a second, as the host detectors have it
# Attribute of a class that moves, and of one that stands.
ATTRIBUTES = {
    **dict.fromkeys(
        ("car", "truck", "bus", "trailer", "construction_vehicle"),
        ("vehicle.moving", "vehicle.parked"),
    ),
    "bicycle": ("cycle.with_rider", "cycle.without_rider"),
    "motorcycle": ("cycle.with_rider", "cycle.without_rider"),
    "pedestrian": ("pedestrian.moving", "pedestrian.standing"),
}


def submission(
    tokens: Sequence[str], scans: Sequence[Scan], poses: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """The content of the file.

    Args:
        tokens: Of the samples; every sample of a split must be there.
        scans: Predicted boxes in the frame of the LiDAR, one a sample.
        poses: (S, 4, 4) from LiDAR to world.
        names: Classes, by the names of nuScenes.

    Raises:
        ValueError: For a class that nuScenes does not have, and a token that comes twice.
    """
    strange = [n for n in names if n not in ATTRIBUTES and n not in ("barrier", "traffic_cone")]
    if strange:
        raise ValueError(f"names: nuScenes has no class {', '.join(strange)}")
    if len(set(tokens)) != len(tokens):
        raise ValueError(f"tokens: {len(tokens) - len(set(tokens))} samples come twice")
    results = {
        token: [
            _entry(token, box, float(score), names[label], pose)
            for box, score, label in _best(scan)
        ]
        for token, scan, pose in zip(tokens, scans, poses)
    }
    return dict(meta=META, results=results)


def _best(scan: Scan) -> list[tuple]:
    rows = np.argsort(-scan.scores, kind="stable")[:MOST]
    return [(scan.boxes[i].astype(float), scan.scores[i], int(scan.labels[i])) for i in rows]


def _entry(token: str, box: np.ndarray, score: float, name: str, pose: np.ndarray) -> dict:
    turn = pose[:3, :3]
    centre = turn @ box[: Z + 1] + pose[:3, 3]
    ahead = turn @ [np.cos(box[YAW]), np.sin(box[YAW]), 0]
    yaw = np.arctan2(ahead[1], ahead[0])
    velocity = (turn @ [*np.nan_to_num(box[VX:]), 0])[:2]
    moves, stands = ATTRIBUTES.get(name, ("", ""))
    return dict(
        sample_token=token,
        translation=centre.tolist(),
        size=box[[WIDTH, LENGTH, HEIGHT]].tolist(),
        rotation=[float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))],
        velocity=velocity.tolist(),
        detection_name=name,
        detection_score=score,
        attribute_name=moves if np.hypot(*velocity) > MOVES else stands,
    )
