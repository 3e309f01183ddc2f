"""Real keyframes of nuScenes through the host: perfect boxes, and a backbone on real scans.

Needs scans on disk, which are not part of the project: a folder in nuScenes' layout with
scene-0916, at DOS_REAL_NUSCENES or ~/.cache/dos-plugin/real/nuscenes.
"""

import importlib.util
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

if importlib.util.find_spec("mmdet3d") is None:
    pytest.skip(
        "needs MMDetection3D: make detection-env, then make test-detection",
        allow_module_level=True,
    )
REAL = os.environ.get("DOS_REAL_NUSCENES") or "~/.cache/dos-plugin/real/nuscenes"
REAL = Path(REAL).expanduser()
if not (REAL / "v1.0-mini/sample.json").is_file():
    pytest.skip(f"needs real keyframes of nuScenes at {REAL}", allow_module_level=True)

from tests import mmcv_operators  # noqa: E402

mmcv_operators.install()

from mmdet3d.evaluation.metrics import NuScenesMetric  # noqa: E402
from mmdet3d.registry import DATASETS, MODELS  # noqa: E402
from mmdet3d.utils import register_all_modules  # noqa: E402
from mmengine.config import Config  # noqa: E402
from nuscenes import NuScenes  # noqa: E402
from nuscenes.eval.detection.utils import category_to_detection_name  # noqa: E402
from pyquaternion import Quaternion  # noqa: E402

from dos_plugin.shipped import configs_dir  # noqa: E402
from tests.nuscenes_tables import CLASSES  # noqa: E402

SCENE = "scene-0916"  # of the official mini_val
CONFIG = configs_dir() / "detection" / "objdet-dos-v1m1-0c-nuscenes-sc.py"


def pose(record):
    matrix = np.eye(4)
    matrix[:3, :3] = Quaternion(record["rotation"]).rotation_matrix
    matrix[:3, 3] = record["translation"]
    return matrix


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The scene's tables, with what is missing made up, and infos of it; scans are links."""
    root = tmp_path_factory.mktemp("nuscenes")
    (root / "v1.0-mini").mkdir()
    (root / "samples").symlink_to(REAL / "samples")
    tables = {p.stem: json.loads(p.read_text()) for p in (REAL / "v1.0-mini").glob("*.json")}
    tables["scene"] = [s for s in tables["scene"] if s["name"] == SCENE]
    scene = tables["scene"][0]
    tables["sample"] = [s for s in tables["sample"] if s["scene_token"] == scene["token"]]
    samples = {s["token"] for s in tables["sample"]}
    for name in ("sample_annotation", "sample_data"):
        tables[name] = [row for row in tables[name] if row["sample_token"] in samples]
    notes = tables["sample_annotation"]
    used = {t for row in notes for t in row["attribute_tokens"]}
    if "attribute" not in tables:
        tables["attribute"] = [dict(token=t, name="vehicle.parked") for t in sorted(used)]
    if "visibility" not in tables:
        tables["visibility"] = [dict(token=str(i), level="") for i in range(1, 5)]
    if "log" not in tables:
        tables["log"] = [dict(token=scene["log_token"], location="", logfile="")]
    (root / "none.png").touch()
    tables["map"] = [dict(token="", log_tokens=[scene["log_token"]], filename="none.png")]
    for name, rows in tables.items():
        (root / "v1.0-mini" / f"{name}.json").write_text(json.dumps(rows))

    nusc = NuScenes("v1.0-mini", str(root), verbose=False)
    infos = []
    for number, sample in enumerate(nusc.sample):
        scan = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
        ego = pose(nusc.get("ego_pose", scan["ego_pose_token"]))
        sensor = pose(nusc.get("calibrated_sensor", scan["calibrated_sensor_token"]))
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
            points = note["num_lidar_pts"] + note["num_radar_pts"]
            label = CLASSES.index(name)
            instances.append(
                dict(
                    bbox_label=label,
                    bbox_label_3d=label,
                    bbox_3d=[*centre.tolist(), length, width, height, yaw],
                    bbox_3d_isvalid=points > 0,
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
    meta = dict(categories={name: i for i, name in enumerate(CLASSES)}, version="v1.0-mini")
    content = dict(metainfo=dict(meta, dataset="nuscenes", info_version="1.1"), data_list=infos)
    (root / "nuscenes_infos_val.pkl").write_bytes(pickle.dumps(content))
    return root


@pytest.fixture(scope="module")
def dataset(root):
    register_all_modules()
    config = Config.fromfile(CONFIG).val_dataloader.dataset
    # with the boxes that radar alone sees: the devkit counts them, the host's default does not
    config.update(data_root=str(root), use_valid_flag=True)
    config.metainfo.update(version="v1.0-mini")
    return DATASETS.build(config)


def test_perfect_boxes_score_perfectly(root, dataset):
    results = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        truth = info["eval_ann_info"]
        boxes = truth["gt_bboxes_3d"]
        predicted = dict(
            bboxes_3d=boxes,
            scores_3d=torch.full((len(boxes),), 0.9),
            labels_3d=torch.as_tensor(truth["gt_labels_3d"]),
        )
        results.append(
            dict(pred_instances_3d=predicted, pred_instances={}, sample_idx=info["sample_idx"])
        )
    metric = NuScenesMetric(str(root), str(root / "nuscenes_infos_val.pkl"))
    metric.dataset_meta = dataset.metainfo
    metric.process({}, results)
    scores = metric.evaluate(len(results))
    prefix = "NuScenes metric/pred_instances_3d_NuScenes/"
    seen = [name for name in CLASSES if scores[f"{prefix}{name}_AP_dist_4.0"] > 0]
    assert len(seen) >= 4
    for name in seen:
        found = [scores[f"{prefix}{name}_AP_dist_{d}"] for d in (0.5, 1.0, 2.0, 4.0)]
        assert found == [1.0] * 4, name
        assert scores[f"{prefix}{name}_trans_err"] < 1e-3
        assert scores[f"{prefix}{name}_scale_err"] < 1e-3
        assert name == "traffic_cone" or scores[f"{prefix}{name}_orient_err"] < 0.05
    assert scores[f"{prefix}mAP"] == pytest.approx(len(seen) / len(CLASSES))


def test_a_real_scan_in_the_full_grid(dataset):
    """The shipped grid and ten times the keyframe as sweeps; a small backbone for the time."""
    config = Config.fromfile(CONFIG)
    encoder = config.model.pts_middle_encoder
    encoder.backbone.update(
        enc_depths=(1,) * 5,
        enc_channels=(8, 16, 24, 32, 40),
        enc_num_head=(1, 2, 3, 4, 5),
        enc_patch_size=(64,) * 5,
        mlp_ratio=1,
        enable_flash=False,
    )
    encoder.proj_channels = 16
    model = MODELS.build(dict(config.model.data_preprocessor))
    network = MODELS.build(encoder).eval()
    points = dataset[0]["inputs"]["points"]
    points = torch.as_tensor(np.asarray(getattr(points, "tensor", points)))
    voxels = model(dict(inputs=dict(points=[points])))["inputs"]["voxels"]
    rows = voxels["voxels"][:, 0]
    assert len(rows) > 15_000 and voxels["dropped"].item() < 0.2 * len(points)
    assert 0 <= rows[:, 3].min() and 0.05 < rows[:, 3].mean() < rows[:, 3].max() <= 1
    with torch.no_grad():
        out = network(rows, voxels["coors"], 1)
    assert out.shape == (1, 80, 270, 270) and torch.isfinite(out).all()
    lit = out[0].abs().sum(0) > 0
    cells = torch.unique(voxels["coors"][:, [2, 3]] // 8, dim=0)
    places = torch.zeros(270, 270, dtype=torch.bool)
    places[cells[:, 0].long(), cells[:, 1].long()] = True
    assert not (lit & ~places).any() and lit.sum() > 0.9 * len(cells)
