"""Data sets of the host with boxes beside the points.

Both add to a sample ``boxes`` (K, 9) float64, ``box_labels`` (K,) int64, ``token``, by which a
submission names the scan, and what the nuScenes protocol and a submission need: ``ego`` (1, 2), the
place of the vehicle in the frame of the LiDAR, and ``pose`` (1, 4, 4) from LiDAR to world (the unit
matrix where it is not known).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dos_plugin.detection.native.boxes import COLUMNS, VX, checked
from dos_plugin.detection.voxels import check_strength
from dos_plugin.host import HOST

# Of the streets: car, truck, bicycle, pedestrian, cone (dos_plugin/scenes/classes.py).
STREET_CLASSES = (9, 10, 11, 12, 13)
NUSCENES_CLASSES = (
    "car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle", "bicycle",
    "pedestrian", "traffic_cone",
)  # fmt: skip


class _Boxes:
    """What both have in common: options, checks, no test stage."""

    def __init__(self, min_points: int = 1, strength_scale: float = 1.0, **kwargs: Any) -> None:
        if kwargs.get("test_mode"):
            raise NotImplementedError(
                "test_mode=True: the fragments of the host's test stage are of segmentation; "
                "DetectionTester takes whole scans, set test_mode=False"
            )
        self.min_points = min_points
        self.strength_scale = strength_scale
        super().__init__(**kwargs)

    def _with(self, data: dict, boxes: np.ndarray, labels: np.ndarray, points: np.ndarray) -> dict:
        """The sample with its boxes; those with too few points are none of the classes."""
        where = f"scan {data['name']!r}"
        if "strength" in data:
            strength = np.asarray(data["strength"], np.float32).reshape(-1, 1) * self.strength_scale
            if len(strength):
                low, high = float(strength.min()), float(strength.max())
                check_strength(low, high, self.strength_scale, len(strength), where)
            data["strength"] = strength
        data["boxes"] = checked(boxes, where)
        data["box_labels"] = np.where(points >= self.min_points, labels, -1).astype(np.int64)
        return data


class BoxDataset(_Boxes, HOST.DATASETS.get("DefaultDataset")):  # type: ignore[misc]
    """Scene folders as ``DefaultDataset`` reads them, with a ``boxes.npy`` in each.

    That file has rows x, y, z, length, width, height, yaw, class or, with velocities, x, y, z,
    length, width, height, yaw, vx, vy, class; ``dos-plugin scenes`` writes the former.

    Args:
        classes: The numbers of the detector's classes in the files.
        min_points: Boxes with fewer points, counted by ``instance.npy``, are ignored.
        strength_scale: Factor that brings strength to [0, 1].
        **kwargs: As for the host's ``DefaultDataset``.

    Raises:
        FileNotFoundError: If a scene has no ``boxes.npy``.
        ValueError: For boxes of another shape, and for strength beyond [0, 1].
    """

    def __init__(self, classes: Sequence[int] = STREET_CLASSES, **kwargs: Any) -> None:
        self.classes = tuple(classes)
        super().__init__(**kwargs)

    def get_data(self, idx: int) -> dict[str, Any]:
        """The sample before any transform."""
        data = super().get_data(idx)
        file = Path(self.data_list[idx % len(self.data_list)]) / "boxes.npy"
        if not file.is_file():
            raise FileNotFoundError(f"the scene has no {file}, which detection needs")
        rows = np.load(file).astype(np.float64)
        if rows.ndim != 2 or rows.shape[1] not in (VX + 1, COLUMNS + 1):
            raise ValueError(
                f"{file}: expected rows x, y, z, length, width, height, yaw, (vx, vy,) class, got "
                f"{rows.shape}"
            )
        boxes = np.full((len(rows), COLUMNS), np.nan)
        boxes[:, : rows.shape[1] - 1] = rows[:, :-1]
        labels = np.full(len(rows), -1)
        for number, label in enumerate(self.classes):
            labels[rows[:, -1] == label] = number
        points = np.full(len(rows), self.min_points)
        instance = np.asarray(data["instance"])
        if (instance >= 0).any():
            points = np.bincount(instance[instance >= 0], minlength=len(rows))[: len(rows)]
        data |= dict(token=data["name"], ego=np.zeros((1, 2)), pose=np.eye(4)[None])
        return self._with(data, boxes, labels, points)


class NuScenesBoxDataset(_Boxes, HOST.DATASETS.get("NuScenesDataset")):  # type: ignore[misc]
    """nuScenes as the host's info files have it, boxes included; one sweep, as the host reads it.

    Args:
        classes: Names of the detector's classes.
        min_points: Boxes with fewer points of the LiDAR are ignored.
        strength_scale: As the host has brought strength to [0, 1] already, 1.
        **kwargs: As for the host's ``NuScenesDataset``.

    Raises:
        ValueError: If an info has boxes of another shape.
    """

    def __init__(self, classes: Sequence[str] = NUSCENES_CLASSES, **kwargs: Any) -> None:
        self.classes = tuple(classes)
        super().__init__(**kwargs)

    def get_data(self, idx: int) -> dict[str, Any]:
        """The sample before any transform."""
        data = super().get_data(idx)
        info: Mapping[str, Any] = self.data_list[idx % len(self.data_list)]
        names = list(info.get("gt_names", ()))  # the test split has none
        boxes = np.zeros((0, COLUMNS))
        if names:
            boxes = np.asarray(info["gt_boxes"], np.float64)
        labels = [self.classes.index(n) if n in self.classes else -1 for n in names]
        points = np.asarray(info.get("num_lidar_pts", [self.min_points] * len(names)))
        data |= dict(token=str(info["token"]), ego=np.zeros((1, 2)), pose=np.eye(4)[None])
        if "ref_from_car" in info:
            car = np.asarray(info["ref_from_car"], np.float64)
            data["ego"] = car[None, :2, 3]
            if "car_from_global" in info:
                data["pose"] = np.linalg.inv(car @ np.asarray(info["car_from_global"]))[None]
        return self._with(data, boxes, np.array(labels, int), points)
