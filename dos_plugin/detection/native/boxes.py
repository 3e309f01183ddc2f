"""Boxes (K, 9) moved as rigid things: centre, size, heading and velocity together."""

from __future__ import annotations

import numpy as np

COLUMNS = 9
X, Y, Z, LENGTH, WIDTH, HEIGHT, YAW, VX, VY = range(COLUMNS)


def checked(boxes: np.ndarray, where: str) -> np.ndarray:
    """The boxes as they are.

    Raises:
        ValueError: If they are not (K, 9), a column but the velocity is not finite, or a length is
            not above 0.
    """
    if boxes.ndim != 2 or boxes.shape[1] != COLUMNS:
        raise ValueError(
            f"{where}: boxes must be (K, 9): x, y, z, length, width, height, yaw, vx, vy; got "
            f"{boxes.shape}"
        )
    bad = ~np.isfinite(boxes[:, :VX]).all(1) | (boxes[:, LENGTH:YAW] <= 0).any(1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{where}: box {row} has a value that is not finite or a length that is not above 0: "
            f"{boxes[row].tolist()}"
        )
    return boxes


def wrapped(angle: np.ndarray) -> np.ndarray:
    """Angles in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def rotated(boxes: np.ndarray, angle: float) -> np.ndarray:
    """Turned about the z axis of the sensor, counter-clockwise, radians."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, s], [-s, c]])  # for rows
    boxes = boxes.copy()
    boxes[:, :Z] = boxes[:, :Z] @ turn
    boxes[:, VX:] = boxes[:, VX:] @ turn
    boxes[:, YAW] = wrapped(boxes[:, YAW] + angle)
    return boxes


def flipped(boxes: np.ndarray, axis: int) -> np.ndarray:
    """With the sign of x (axis 0) or y (axis 1) changed."""
    boxes = boxes.copy()
    boxes[:, [axis, VX + axis]] *= -1
    boxes[:, YAW] = wrapped((np.pi if axis == 0 else 0.0) - boxes[:, YAW])
    return boxes


def scaled(boxes: np.ndarray, factor: float) -> np.ndarray:
    """Larger or smaller, and farther away or nearer; velocities, too."""
    boxes = boxes.copy()
    boxes[:, :YAW] *= factor
    boxes[:, VX:] *= factor
    return boxes


def translated(boxes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Moved by (3,) metres."""
    boxes = boxes.copy()
    boxes[:, :LENGTH] += shift
    return boxes


def corners(boxes: np.ndarray) -> np.ndarray:
    """(K, 8, 3): those of the bottom, then those above, counter-clockwise from the front left."""
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    local = signs * boxes[:, None, LENGTH:HEIGHT]  # (K, 4, 2)
    c, s = np.cos(boxes[:, YAW, None]), np.sin(boxes[:, YAW, None])
    x = boxes[:, X, None] + c * local[..., 0] - s * local[..., 1]
    y = boxes[:, Y, None] + s * local[..., 0] + c * local[..., 1]
    low = np.broadcast_to(boxes[:, Z, None] - boxes[:, HEIGHT, None] / 2, x.shape)
    high = low + boxes[:, HEIGHT, None]
    return np.concatenate([np.stack([x, y, z], axis=-1) for z in (low, high)], axis=1)
