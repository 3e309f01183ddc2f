"""Real keyframes of nuScenes as MMDetection3D and the devkit read them, made of the tables alone.

The scans are not part of the project: a folder in nuScenes' layout with ``samples/LIDAR_TOP`` and
``v1.0-mini/*.json``. What the devkit asks for and is not there (attributes' names, visibility, log,
map) is made up.
"""

import json
import pickle
from pathlib import Path

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name
from pyquaternion import Quaternion

VERSION = "v1.0-mini"
CLASSES = (  # as the host's infos number them
    "car", "truck", "trailer", "bus", "construction_vehicle", "bicycle", "motorcycle",
    "pedestrian", "traffic_cone", "barrier",
)  # fmt: skip


def write_root(real: Path, root: Path, val: str, train: str | None = None) -> Path:
    """A data root with the tables of one scene, and infos of it and of another one.

    Args:
        real: Where the scans and tables are.
        root: Folder to write; scans are a link.
        val: Name of the scene that is scored; its tables are written.
        train: Name of the scene to train on, None for none.

    Raises:
        ValueError: If there is no such scene.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name in filter(None, (train, val)):  # the scene that is scored last: its tables stay
        _write_tables(real, root, name)
        side = "val" if name == val else "train"
        infos = scene_infos(root)
        meta = dict(categories={name: i for i, name in enumerate(CLASSES)}, version=VERSION)
        meta |= dict(dataset="nuscenes", info_version="1.1")
        content = pickle.dumps(dict(metainfo=meta, data_list=infos))
        (root / f"nuscenes_infos_{side}.pkl").write_bytes(content)
    return root


def _write_tables(real: Path, root: Path, scene_name: str) -> None:
    (root / VERSION).mkdir(exist_ok=True)
    if not (root / "samples").exists():
        (root / "samples").symlink_to(real / "samples")
    tables = {path.stem: json.loads(path.read_text()) for path in (real / VERSION).glob("*.json")}
    names = [scene["name"] for scene in tables["scene"]]
    if scene_name not in names:
        raise ValueError(f"{real / VERSION}: there is no {scene_name}, only {', '.join(names)}")
    tables["scene"] = [scene for scene in tables["scene"] if scene["name"] == scene_name]
    scene = tables["scene"][0]
    tables["sample"] = [s for s in tables["sample"] if s["scene_token"] == scene["token"]]
    samples = {sample["token"] for sample in tables["sample"]}
    for name in ("sample_annotation", "sample_data"):
        tables[name] = [row for row in tables[name] if row["sample_token"] in samples]
    used = {t for row in tables["sample_annotation"] for t in row["attribute_tokens"]}
    made_up = dict(
        attribute=[dict(token=token, name="vehicle.parked") for token in sorted(used)],
        visibility=[dict(token=str(i), level="") for i in range(1, 5)],
        log=[dict(token=scene["log_token"], location="", logfile="")],
    )
    tables = made_up | tables
    (root / "none.png").touch()
    tables["map"] = [dict(token="", log_tokens=[scene["log_token"]], filename="none.png")]
    for name, rows in tables.items():
        (root / VERSION / f"{name}.json").write_text(json.dumps(rows))


def scene_infos(root: Path) -> list[dict]:
    """Infos of all samples in the tables: one sweep, boxes in the frame of the sensor."""
    nusc = NuScenes(VERSION, str(root), verbose=False)
    infos = []
    for number, sample in enumerate(nusc.sample):
        scan = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
        ego = _pose(nusc.get("ego_pose", scan["ego_pose_token"]))
        sensor = _pose(nusc.get("calibrated_sensor", scan["calibrated_sensor_token"]))
        inverse = np.linalg.inv(ego @ sensor)
        instances = []
        for token in sample["anns"]:
            note = nusc.get("sample_annotation", token)
            name = category_to_detection_name(note["category_name"])
            if name is None:
                continue
            heading = inverse[:3, :3] @ Quaternion(note["rotation"]).rotation_matrix[:, 0]
            centre = (inverse @ [*note["translation"], 1])[:3]
            width, length, height = note["size"]
            yaw = float(np.arctan2(heading[1], heading[0]))
            label = CLASSES.index(name)
            instances.append(
                dict(
                    bbox_label=label,
                    bbox_label_3d=label,
                    bbox_3d=[*centre.tolist(), length, width, height, yaw],
                    bbox_3d_isvalid=note["num_lidar_pts"] + note["num_radar_pts"] > 0,
                    num_lidar_pts=note["num_lidar_pts"],
                    num_radar_pts=note["num_radar_pts"],
                    velocity=(inverse[:3, :3] @ nusc.box_velocity(token))[:2].tolist(),
                )
            )
        infos.append(
            dict(
                sample_idx=number,
                token=sample["token"],
                timestamp=sample["timestamp"] / 1e6,
                ego2global=ego.tolist(),
                images={},
                lidar_points=dict(
                    num_pts_feats=5,
                    lidar_path=Path(scan["filename"]).name,
                    lidar2ego=sensor.tolist(),
                ),
                lidar_sweeps=[],
                instances=instances,
            )
        )
    return infos


def _pose(record: dict) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Quaternion(record["rotation"]).rotation_matrix
    matrix[:3, 3] = record["translation"]
    return matrix
