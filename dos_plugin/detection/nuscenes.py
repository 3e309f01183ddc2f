"""Boxes of nuScenes: true ones from its tables, found ones from a submission, poses for both.

Both are in the global frame, sizes as width, length, height and headings as quaternions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dos_plugin.detection.boxes import Boxes, Frame, frame_names, make_boxes, moved, wrong

# Classes of the benchmark by the start of the category's name; all others do not count.
CLASSES = {
    "movable_object.barrier": "barrier",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
}


class Pose(NamedTuple):
    """Where the LiDAR was: its scan file's name, and the (4, 4) matrix from global to its frame."""

    file: str
    matrix: np.ndarray


def rotation(quaternion: Any) -> np.ndarray:
    """(3, 3) matrix of a quaternion w, x, y, z of any length but 0."""
    w, x, y, z = np.asarray(quaternion, dtype=np.float64) / np.linalg.norm(quaternion)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def read_poses(tables: Path) -> dict[str, Pose]:
    """Pose of the LiDAR at each keyframe, by the sample's token.

    Args:
        tables: folder of ``sample_data.json`` and the others, such as ``v1.0-trainval``.

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: a table is not as nuScenes' are.
    """
    sensors = {row["token"]: row for row in _table(tables, "sensor", "token", "channel")}
    mounted = {}
    for row in _table(tables, "calibrated_sensor", "token", "sensor_token", *_PLACE):
        if sensors.get(row["sensor_token"], {}).get("channel") == "LIDAR_TOP":
            mounted[row["token"]] = _matrix(tables / "calibrated_sensor.json", row)
    keys = ("sample_token", "ego_pose_token", "calibrated_sensor_token", "is_key_frame", "filename")
    scans = [
        row
        for row in _table(tables, "sample_data", *keys)
        if row["is_key_frame"] and row["calibrated_sensor_token"] in mounted
    ]
    needed = {row["ego_pose_token"] for row in scans}
    file = tables / "ego_pose.json"
    egos = {
        row["token"]: _matrix(file, row)
        for row in _table(tables, "ego_pose", "token", *_PLACE)
        if row["token"] in needed
    }
    found = {}
    for row in scans:
        if row["ego_pose_token"] not in egos:
            expected = "a token of ego_pose.json"
            name = "sample_data.json"
            raise wrong(tables / name, "ego_pose_token", row["ego_pose_token"], expected)
        to_global = egos[row["ego_pose_token"]] @ mounted[row["calibrated_sensor_token"]]
        found[row["sample_token"]] = Pose(row["filename"], np.linalg.inv(to_global))
    if not found:
        raise ValueError(f"{tables}: sample_data.json has no keyframe of LIDAR_TOP")
    return found


def read_annotations(tables: Path) -> list[Frame]:
    """True boxes of all keyframes: of the benchmark's ten classes, with a LiDAR or radar point.

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: a table is not as nuScenes' are.
    """
    poses = read_poses(tables)
    category = {row["token"]: row["name"] for row in _table(tables, "category", "token", "name")}
    kinds = {
        row["token"]: class_of(category.get(row["category_token"], ""))
        for row in _table(tables, "instance", "token", "category_token")
    }
    rows: dict[str, list[Mapping[str, Any]]] = {token: [] for token in poses}
    keys = ("sample_token", "instance_token", "num_lidar_pts", "num_radar_pts")
    for row in _table(tables, "sample_annotation", *keys, *_PLACE, "size"):
        points = row["num_lidar_pts"] + row["num_radar_pts"]
        if points and kinds.get(row["instance_token"]) and row["sample_token"] in rows:
            rows[row["sample_token"]].append(row)
    file = tables / "sample_annotation.json"
    return [
        Frame(
            frame_names(token, pose.file),
            global_boxes(file, token, rows[token], pose, [kinds[r["instance_token"]] for r in
                         rows[token]]),
        )
        for token, pose in poses.items()
    ]  # fmt: skip


def class_of(category: str) -> str | None:
    """The benchmark's class of a category, None if it does not count there."""
    return next((name for start, name in CLASSES.items() if category.startswith(start)), None)


def read_submission(file: Path, content: Any, poses: Mapping[str, Pose]) -> list[Frame]:
    """Found boxes of a submission, in the frame of the LiDAR.

    Args:
        file: for the errors.
        content: of the JSON file.
        poses: of :func:`read_poses` or of a host's infos.

    Raises:
        ValueError: it is no submission, or none of its samples has a pose.
    """
    results = content.get("results") if isinstance(content, Mapping) else None
    if not isinstance(results, Mapping):
        found = sorted(content) if isinstance(content, Mapping) else content
        raise wrong(file, "keys", found, "'results' and 'meta' of a nuScenes submission")
    frames = []
    for token, rows in results.items():
        if token not in poses:
            continue
        where = f"results.{token}"
        if not isinstance(rows, list):
            raise wrong(file, where, rows, "a list of boxes")
        for row in rows:
            for key in ("translation", "size", "rotation", "detection_name", "detection_score"):
                if key not in row:
                    raise wrong(file, f"{where}, keys of a box", sorted(row), f"{key!r} as well")
        names = [row["detection_name"] for row in rows]
        scores = [row["detection_score"] for row in rows]
        boxes = global_boxes(file, where, rows, poses[token], names, scores)
        frames.append(Frame(frame_names(token, poses[token].file), boxes))
    if results and not frames:
        raise wrong(
            file,
            "first token of results",
            next(iter(results)),
            f"one of the {len(poses)} samples whose poses are known, such as "
            f"{next(iter(poses), 'none')!r}: tables or infos of another part of the data?",
        )
    return frames


def global_boxes(
    file: Any, key: str, rows: list, pose: Pose, names: list, scores: list | None = None
) -> Boxes:
    """Rows with ``translation``, ``size``, ``rotation`` and perhaps ``velocity`` by a pose."""
    box = []
    for number, row in enumerate(rows):
        for name, length in (("translation", 3), ("size", 3), ("rotation", 4)):
            _numbers(file, f"{key}, {name} of box {number}", row[name], length)
        heading = rotation(row["rotation"])[:, 0]
        width, length, height = row["size"]
        speed = row.get("velocity") or (np.nan, np.nan)
        yaw = np.arctan2(heading[1], heading[0])
        box.append([*row["translation"], length, width, height, yaw, *speed[:2]])
    boxes = make_boxes(file, key, box, names, scores)
    return Boxes(moved(boxes.box, pose.matrix), boxes.label, boxes.score)


_PLACE = ("translation", "rotation")


def _numbers(file: Any, key: str, value: Any, count: int) -> None:
    fits = isinstance(value, list | tuple) and len(value) == count
    if not fits or not all(isinstance(v, int | float) and np.isfinite(v) for v in value):
        raise wrong(file, key, value, f"{count} numbers")
    if count == 4 and not any(value):
        raise wrong(file, key, value, "a quaternion w, x, y, z")


def _matrix(file: Path, row: Mapping[str, Any]) -> np.ndarray:
    """(4, 4) matrix of a row with ``rotation`` and ``translation``."""
    _numbers(file, f"translation of {row['token']}", row["translation"], 3)
    _numbers(file, f"rotation of {row['token']}", row["rotation"], 4)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(row["rotation"]), row["translation"]
    return matrix


def _table(folder: Path, name: str, *keys: str) -> list[dict[str, Any]]:
    file = folder / f"{name}.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file, expected a table of nuScenes")
    rows = read_json(file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise wrong(file, "content", rows, "a list of rows")
    for row in rows:
        for key in keys:
            if key not in row:
                raise wrong(file, "keys of a row", sorted(row), f"{key!r} as well")
    return rows


def read_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: if it is none.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: no JSON, or cut off ({error})") from None
