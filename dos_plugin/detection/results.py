"""Boxes out of the files of detectors and data sets, all in the convention of ``boxes.py``.

=====================================  ==========================================  ===========
what                                   file                                        its z
=====================================  ==========================================  ===========
submission of nuScenes                 ``results_nusc.json``; global frame         centre
results of MMDetection3D               ``.pkl`` of its ``DumpResults``             underside
infos of MMDetection3D                 ``*_infos_*.pkl``; KITTI: camera's frame    centre
results of OpenPCDet                   ``result.pkl``                              centre
infos of OpenPCDet and Pointcept       ``*_infos_*.pkl``                           centre
tables of nuScenes                     folder of JSON files; global frame          centre
labels and results of KITTI            ``000008.txt``, or a folder of them         underside
synthetic streets                      ``boxes.npy``, its folder, or the split's   centre
=====================================  ==========================================  ===========
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dos_plugin.detection.boxes import Boxes, Frame, as_array, frame_names, make_boxes, wrong
from dos_plugin.detection.kitti import camera_boxes, read_labels
from dos_plugin.detection.nuscenes import (
    Pose,
    read_annotations,
    read_json,
    read_poses,
    read_submission,
)
from dos_plugin.scenes.classes import CLASS_NAMES
from dos_plugin.unpickle import StandIn, read_pickle

# Data sets whose infos of MMDetection3D hold boxes in the frame of the LiDAR.
IN_LIDAR_FRAME = ("nuscenes", "lyft")


def read_frames(
    path: str | Path,
    classes: Sequence[str] = (),
    poses: Mapping[str, Pose] | None = None,
    calib: Path | None = None,
) -> list[Frame]:
    """Boxes of all scans of a file or folder, whose format is found by its content.

    Args:
        path: see the table above.
        classes: class names by label, for results that hold numbers alone.
        poses: of nuScenes' samples, for a submission; see :func:`find_poses`.
        calib: of KITTI, default beside the labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of no known format, or not as its format says; names file, key, the value
            and what was expected.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path, calib)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder, expected boxes")
    if path.suffix == ".npy":
        return [read_street(path)]
    if path.suffix == ".txt":
        return read_labels(path, calib)
    if path.suffix == ".json":
        if poses is None:
            raise ValueError(
                f"{path}: boxes in the global frame, which needs the poses of the samples: name "
                "nuScenes' folder of tables, or a host's infos, with --poses"
            )
        return read_submission(path, read_json(path), poses)
    if path.suffix in (".pkl", ".pickle"):
        return _of_pickle(path, read_pickle(path), classes)
    raise wrong(path, "suffix", path.suffix, ".json, .pkl, .txt or .npy")


def find_poses(path: str | Path) -> dict[str, Pose] | None:
    """Poses of nuScenes' samples out of its tables or of a host's infos; None of anything else.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(path)
    if (path / "ego_pose.json").is_file():
        return read_poses(path)
    if path.suffix not in (".pkl", ".pickle"):
        return None
    content = read_pickle(path)
    rows = content.get("data_list") if isinstance(content, Mapping) else content
    found = {}
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, Mapping) or "token" not in row:
            continue
        if "ego2global" in row and "lidar2ego" in row.get("lidar_points", {}):
            points = row["lidar_points"]
            to_global = _square(path, row, "ego2global") @ _square(path, points, "lidar2ego")
            found[row["token"]] = Pose(points.get("lidar_path", ""), np.linalg.inv(to_global))
        elif "ref_from_car" in row and "car_from_global" in row:
            matrix = _square(path, row, "ref_from_car") @ _square(path, row, "car_from_global")
            found[row["token"]] = Pose(str(row.get("lidar_path", "")), matrix)
    return found or None


def read_street(file: Path) -> Frame:
    """Boxes of a synthetic street: (K, 8), the last column is the class.

    Raises:
        ValueError: it is another array.
    """
    try:
        rows = np.load(file)
    except ValueError as error:
        raise ValueError(f"{file}: no .npy of numbers, or cut off ({error})") from None
    if rows.ndim != 2 or rows.shape[1] != 8 or rows.dtype.kind not in "fiu":
        expected = "(K, 8) numbers: centre, lengths, yaw and class of a street's boxes"
        raise wrong(file, "shape", rows.shape, expected)
    kinds = rows[:, 7].astype(np.int64)
    bad = (kinds < 0) | (kinds >= len(CLASS_NAMES))
    if bad.any():
        raise wrong(file, "class", int(kinds[bad][0]), f"0 to {len(CLASS_NAMES) - 1}")
    names = [CLASS_NAMES[kind] for kind in kinds]
    boxes = make_boxes(file, "boxes", rows[:, :7], names)
    return Frame(frame_names(file.resolve().parent.name), boxes)


def _of_folder(path: Path, calib: Path | None) -> list[Frame]:
    if (path / "sample_annotation.json").is_file():
        return read_annotations(path)
    if (path / "boxes.npy").is_file():
        return [read_street(path / "boxes.npy")]
    streets = sorted(path.glob("*/boxes.npy"))
    if streets:
        return [read_street(file) for file in streets]
    if any(path.glob("*.txt")):
        return read_labels(path, calib)
    raise FileNotFoundError(
        f"{path}: no boxes in this folder, expected nuScenes' tables (sample_annotation.json), "
        "KITTI's labels (*.txt) or scenes (boxes.npy)"
    )


def _of_pickle(file: Path, content: Any, classes: Sequence[str]) -> list[Frame]:
    if isinstance(content, Mapping) and isinstance(content.get("data_list"), list):
        return mmdet3d_infos(file, content)
    if not isinstance(content, list):
        keys = sorted(map(str, content)) if isinstance(content, Mapping) else content
        expected = "'metainfo' and 'data_list' of MMDetection3D, or a list of one entry a scan"
        raise wrong(file, "keys", keys, expected)
    frames = []
    for number, row in enumerate(content):
        for key, read in FORMATS.items():
            if _has(row, key):
                frames.append(read(file, number, row, classes))
                break
        else:
            keys = sorted(map(str, row)) if isinstance(row, Mapping) else row
            raise wrong(file, f"keys of entry {number}", keys, f"one of {', '.join(FORMATS)}")
    return frames


def mmdet3d_infos(file: Path, content: Mapping[str, Any]) -> list[Frame]:
    """True boxes of MMDetection3D's infos, version 1.1 or later, of nuScenes, Lyft or KITTI."""
    meta = content.get("metainfo")
    meta = meta if isinstance(meta, Mapping) else {}
    kind = str(meta.get("dataset", "")).lower()
    if kind != "kitti" and kind not in IN_LIDAR_FRAME:
        expected = f"one of {', '.join(IN_LIDAR_FRAME)}, kitti, whose frame is known"
        raise wrong(file, "metainfo.dataset", meta.get("dataset"), expected)
    categories = meta.get("categories")
    if not isinstance(categories, Mapping):
        raise wrong(file, "metainfo.categories", categories, "names with their numbers")
    names = {number: name for name, number in categories.items()}
    frames = []
    for number, row in enumerate(content["data_list"]):
        where = f"data_list[{number}]"
        points = _get(file, where, row, "lidar_points")
        found, labels = [], []
        for one in _get(file, where, row, "instances"):
            label = _get(file, f"{where}.instances", one, "bbox_label_3d")
            if label < 0 or not one.get("bbox_3d_isvalid", True):
                continue
            box = list(_get(file, f"{where}.instances", one, "bbox_3d"))
            found.append(box + list(one.get("velocity", ())) if len(box) == 7 else box)
            labels.append(names.get(label, f"class {label}"))
        boxes = make_boxes(file, f"{where}.instances", found, labels)
        if kind == "kitti":
            camera = _get(file, f"{where}.images", row.get("images", {}), "CAM2")
            matrix = _square(file, camera, "lidar2cam")
            boxes = Boxes(camera_boxes(boxes.box, matrix), boxes.label)
        token, index = row.get("token"), row.get("sample_idx")
        frames.append(Frame(frame_names(token, points.get("lidar_path"), index), boxes))
    return frames


def mmdet3d_result(file: Path, number: int, row: Any, classes: Sequence[str]) -> Frame:
    """Found boxes of a scan in MMDetection3D's results: the z of its boxes is the underside."""
    where = f"[{number}].pred_instances_3d"
    instances = _value(row, "pred_instances_3d")
    found = _get(file, where, instances, "bboxes_3d")
    name = type(found).__name__ if isinstance(found, StandIn) else "LiDARInstance3DBoxes"
    if name != "LiDARInstance3DBoxes":
        raise wrong(file, f"{where}.bboxes_3d", name, "LiDARInstance3DBoxes")
    tensor = getattr(found, "tensor", found)
    try:
        box = as_array(tensor)
    except (TypeError, ValueError):
        raise wrong(file, f"{where}.bboxes_3d", found, "boxes with a tensor") from None
    if box.ndim == 2 and box.shape[1] >= 7:
        box[:, 2] += box[:, 5] / 2
    labels = np.asarray(_get(file, where, instances, "labels_3d")).reshape(-1)
    scores = _get(file, where, instances, "scores_3d")
    names = [_name(int(label), classes) for label in labels]
    boxes = make_boxes(file, f"{where}.bboxes_3d", box, names, scores)
    known = (_value(row, key) for key in ("token", "lidar_path", "sample_idx"))
    return Frame(frame_names(*known) or (f"#{number}",), boxes)


def openpcdet_result(file: Path, number: int, row: Any, classes: Sequence[str]) -> Frame:
    """Found boxes of a scan in OpenPCDet's ``result.pkl``."""
    where = f"[{number}]"
    names = _get(file, where, row, "name")
    scores = _get(file, where, row, "score")
    boxes = make_boxes(file, f"{where}.boxes_lidar", row["boxes_lidar"], list(names), scores)
    meta = row.get("metadata")
    token = meta.get("token") if isinstance(meta, Mapping) else None
    return Frame(frame_names(row.get("frame_id"), token) or (f"#{number}",), boxes)


def list_info(file: Path, number: int, row: Any, classes: Sequence[str]) -> Frame:
    """True boxes of a scan of nuScenes in the infos of OpenPCDet or Pointcept."""
    names = _get(file, f"[{number}]", row, "gt_names")
    boxes = make_boxes(file, f"[{number}].gt_boxes", row["gt_boxes"], list(names)).counted()
    token, scan = row.get("token"), row.get("lidar_path")
    return Frame(frame_names(token, scan) or (f"#{number}",), boxes)


def openpcdet_kitti_info(file: Path, number: int, row: Any, classes: Sequence[str]) -> Frame:
    """True boxes of a scan of KITTI in OpenPCDet's infos; objects without a box come last."""
    where = f"[{number}].annos"
    box = _get(file, where, row["annos"], "gt_boxes_lidar")
    names = list(_get(file, where, row["annos"], "name"))[: len(box)]
    boxes = make_boxes(file, f"{where}.gt_boxes_lidar", box, names).counted()
    points = row.get("point_cloud")
    index = points.get("lidar_idx") if isinstance(points, Mapping) else None
    return Frame(frame_names(index) or (f"#{number}",), boxes)


FORMATS = {
    "pred_instances_3d": mmdet3d_result,
    "boxes_lidar": openpcdet_result,
    "gt_boxes": list_info,
    "annos": openpcdet_kitti_info,
}


def _name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if 0 <= label < len(classes) else f"class {label}"


def _has(row: Any, key: str) -> bool:
    return _value(row, key) is not None


def _value(row: Any, key: str) -> Any:
    """Of a mapping, or of an object that stands for one; None if it is not there."""
    if isinstance(row, Mapping):
        return row.get(key)
    # A data sample of MMDetection3D keeps its fields under such names.
    return getattr(row, key, getattr(row, f"_{key}", None))


def _get(file: Any, where: str, row: Any, key: str) -> Any:
    if not _has(row, key):
        keys = sorted(map(str, row if isinstance(row, Mapping) else getattr(row, "__dict__", ())))
        raise wrong(file, f"keys of {where}", keys, f"{key!r} among them")
    return _value(row, key)


def _square(file: Any, row: Mapping[str, Any], key: str) -> np.ndarray:
    value = _get(file, "an entry", row, key)
    try:
        return np.array(value, dtype=np.float64).reshape(4, 4)
    except (TypeError, ValueError):
        raise wrong(file, key, value, "a matrix of 4 x 4 numbers") from None
