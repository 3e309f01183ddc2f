"""Boxes of KITTI's label and result files, which are in the camera's frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dos_plugin.detection.boxes import Boxes, Frame, frame_names, make_boxes, wrong

COLUMNS = 15  # type, truncated, occluded, alpha, 2D box, h, w, l, x, y, z, ry; then the score


def read_labels(path: Path, calib: Path | None = None) -> list[Frame]:
    """Boxes of a label or result file, or of a folder of them, in the frame of the LiDAR.

    Args:
        path: ``000008.txt`` or its folder.
        calib: file of that scan or folder of ``000008.txt`` and others; default: ``calib`` beside
            the folder of the labels.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not as KITTI's are.
    """
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"{path}: no .txt in this folder, expected labels of KITTI")
    frames = []
    for file in files:
        beside = calib or file.resolve().parent.parent / "calib"
        of_scan = beside / file.name if beside.is_dir() else beside
        frames.append(Frame(frame_names(file.name, file.stem), read_file(file, of_scan)))
    return frames


def read_file(file: Path, calib: Path) -> Boxes:
    """Boxes of one file."""
    lidar_to_camera = read_calibration(calib)
    rows, names, scores = [], [], []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = f"line {number}"
        if len(words) not in (COLUMNS, COLUMNS + 1):
            expected = f"{COLUMNS} columns, or {COLUMNS + 1} with a score"
            raise wrong(file, where, line, expected)
        try:
            values = [float(word) for word in words[1:]]
        except ValueError:
            raise wrong(file, where, line, "a type and numbers") from None
        if words[0] == "DontCare":
            continue
        names.append(words[0])
        height, width, length, x, y, z, turn = values[7:14]
        rows.append([x, y, z, length, height, width, turn])
        scores.append(values[14] if len(words) > COLUMNS else np.nan)
    given = ~np.isnan(scores)
    if given.any() and not given.all():
        raise wrong(file, "columns", "a score in some lines", "in all or none")
    box = camera_boxes(np.array(rows).reshape(-1, 7), lidar_to_camera)
    return make_boxes(file, "boxes", box, names, scores if given.any() else None)


def camera_boxes(rows: np.ndarray, lidar_to_camera: np.ndarray) -> np.ndarray:
    """Boxes of a camera (x right, y down, z forward) in the frame of the LiDAR.

    Args:
        rows: (K, 7) x, y, z of the middle of the underside, length, height, width, and the turn
            about y from x to -z.
        lidar_to_camera: (4, 4).

    Returns:
        (K, 7) as in :mod:`dos_plugin.detection.boxes`.
    """
    back = np.linalg.inv(lidar_to_camera)
    centre = rows[:, :3] - np.array([0.0, 0.5, 0.0]) * rows[:, 4:5]
    centre = centre @ back[:3, :3].T + back[:3, 3]
    zero = np.zeros(len(rows))
    heading = np.stack([np.cos(rows[:, 6]), zero, -np.sin(rows[:, 6])], 1) @ back[:3, :3].T
    yaw = np.arctan2(heading[:, 1], heading[:, 0])
    return np.column_stack([centre, rows[:, 3], rows[:, 5], rows[:, 4], yaw])


def read_calibration(file: Path) -> np.ndarray:
    """(4, 4) matrix from the LiDAR's to the rectified camera's frame, ``R0_rect`` times
    ``Tr_velo_to_cam``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one of the two is missing or damaged.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file, expected KITTI's calibration of the scan (--calib)"
        )
    found: dict[str, Any] = {}
    for line in file.read_text().splitlines():
        name, _, values = line.partition(":")
        found[name.strip()] = values
    both = []
    for name, shape in (("R0_rect", (3, 3)), ("Tr_velo_to_cam", (3, 4))):
        if name not in found:
            raise wrong(file, "keys", sorted(key for key in found if key), f"{name!r} among them")
        expected = f"{shape[0] * shape[1]} numbers"
        try:
            numbers = np.array(found[name].split(), dtype=np.float64).reshape(shape)
        except ValueError:
            raise wrong(file, name, found[name], expected) from None
        matrix = np.eye(4)
        matrix[: shape[0], : shape[1]] = numbers
        both.append(matrix)
    return both[0] @ both[1]
