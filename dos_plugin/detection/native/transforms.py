"""Transforms that move points and boxes by the same, in the data-loader workers.

A sample has ``coord`` (N, 3), ``boxes`` (K, 9) and ``box_labels`` (K,). The host's own transforms
of positions would leave the boxes behind.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import torch

from dos_plugin.detection.grid import DetectionGrid
from dos_plugin.detection.native.boxes import flipped, rotated, scaled, translated
from dos_plugin.transforms.views import point_keys

# Of the host: they move points alone.
LEAVE_BOXES_BEHIND = (
    "NormalizeCoord", "PositiveShift", "CenterShift", "RandomShift", "PointClip", "RandomRotate",
    "RandomRotateTargetAngle", "RandomScale", "RandomFlip", "ElasticDistortion",
)  # fmt: skip


def _move(data: dict, points: Callable, boxes: Callable, normals: Callable | None = None) -> dict:
    coord = data["coord"]
    data["coord"] = points(coord.astype(np.float64)).astype(coord.dtype)
    data["boxes"] = boxes(data["boxes"])
    if normals is not None and "normal" in data:
        data["normal"] = normals(data["normal"]).astype(data["normal"].dtype)
    return data


class BoxRotate:
    """Turn a scene about the z axis of the sensor.

    Args:
        angle: Range, in units of pi as the host has it, counter-clockwise.
        p: How often.
    """

    def __init__(self, angle: tuple[float, float] = (-1, 1), p: float = 1.0) -> None:
        self.angle = angle
        self.p = p

    def __call__(self, data: dict) -> dict:
        if random.random() > self.p:
            return data
        angle = random.uniform(*self.angle) * np.pi
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        return _move(data, lambda x: x @ turn, lambda b: rotated(b, angle), lambda n: n @ turn)


class BoxFlip:
    """Change the sign of x, and independently of y.

    Args:
        p: How often, of each.
        axes: 0 for x and 1 for y, those that are changed; y alone for scans of a front camera.

    Raises:
        ValueError: For other axes.
    """

    def __init__(self, p: float = 0.5, axes: Sequence[int] = (0, 1)) -> None:
        if not set(axes) <= {0, 1}:
            raise ValueError(f"axes: expected some of 0 (x) and 1 (y), got {tuple(axes)}")
        self.p = p
        self.axes = tuple(axes)

    def __call__(self, data: dict) -> dict:
        for axis in self.axes:
            if random.random() < self.p:
                sign = np.ones(3)
                sign[axis] = -1
                data = _move(
                    data,
                    lambda x, sign=sign: x * sign,
                    lambda b, axis=axis: flipped(b, axis),
                    lambda n, sign=sign: n * sign,
                )
        return data


class BoxScale:
    """Scale a scene about the sensor by one factor for all axes.

    Args:
        scale: Range of the factor.
    """

    def __init__(self, scale: tuple[float, float] = (0.95, 1.05)) -> None:
        self.scale = scale

    def __call__(self, data: dict) -> dict:
        factor = random.uniform(*self.scale)
        return _move(data, lambda x: x * factor, lambda b: scaled(b, factor))


class BoxTranslate:
    """Shift a scene.

    Args:
        shift: Range along x, y and z, metres.
    """

    def __init__(
        self, shift: Sequence[tuple[float, float]] = ((-0.5, 0.5), (-0.5, 0.5), (-0.2, 0.2))
    ) -> None:
        self.shift = shift

    def __call__(self, data: dict) -> dict:
        shift = np.array([random.uniform(*limits) for limits in self.shift])
        return _move(data, lambda x: x + shift, lambda b: translated(b, shift))


class BoxRangeFilter:
    """Drop points outside a range, and boxes whose centre lies outside seen from above.

    Args:
        point_cloud_range: x, y, z of the lower and of the upper corner, metres; the upper faces
            lie outside.
    """

    def __init__(self, point_cloud_range: Sequence[float]) -> None:
        low, high = np.reshape(np.asarray(point_cloud_range, dtype=np.float64), (2, 3))
        if (low >= high).any():
            raise ValueError(
                "point_cloud_range: expected x, y, z of the lower and then of the upper corner, "
                f"got {tuple(point_cloud_range)}"
            )
        self.low, self.high = low, high

    def __call__(self, data: dict) -> dict:
        _select(data, _inside(data["coord"], self.low, self.high))
        kept = _inside(data["boxes"][:, :2], self.low[:2], self.high[:2])
        data["boxes"], data["box_labels"] = data["boxes"][kept], data["box_labels"][kept]
        return data


class RangeVoxels:
    """One point a voxel of a grid that starts at the range, and the voxels as ``grid_coord``.

    Takes the place of the host's GridSample, whose grid starts elsewhere in every scene. Points
    outside the range, or not finite, are dropped.

    Args:
        point_cloud_range: Range of the detector, metres.
        grid_size: Edge of a voxel, metres.
        shuffle: Keep a random point of a voxel instead of the first, as in the pretraining.

    Raises:
        ValueError: If the range holds no whole number of voxels.
    """

    def __init__(
        self, point_cloud_range: Sequence[float], grid_size: float, shuffle: bool = True
    ) -> None:
        self.grid = DetectionGrid(point_cloud_range, grid_size, 1)
        self.shuffle = shuffle

    def __call__(self, data: dict) -> dict:
        cells, inside = (part.numpy() for part in self.grid.cells(torch.as_tensor(data["coord"])))
        rows = np.flatnonzero(inside)
        if self.shuffle:
            rows = np.random.permutation(rows)
        _, y, z = self.grid.shape
        key = (cells[rows, 0] * y + cells[rows, 1]) * z + cells[rows, 2]
        rows = rows[np.unique(key, return_index=True)[1]]
        _select(data, rows)
        data["grid_coord"] = cells[rows]
        data["index_valid_keys"] = [*data["index_valid_keys"], "grid_coord"]
        return data


def _inside(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.all((points >= low) & (points < high), axis=1)


def _select(data: dict, rows: np.ndarray) -> None:
    keys = point_keys(data)
    for key in keys:
        data[key] = data[key][rows]
    data["index_valid_keys"] = keys
