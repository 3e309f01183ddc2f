"""Real keyframes of nuScenes through the host: perfect boxes, and a backbone on real scans.

Needs scans on disk, which are not part of the project: a folder in nuScenes' layout with
scene-0916, at DOS_REAL_NUSCENES or ~/.cache/dos-plugin/real/nuscenes.
"""

import importlib.util
import os
import sys
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

from dos_plugin.shipped import configs_dir  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from keyframes import CLASSES, write_root  # noqa: E402

SCENE = "scene-0916"  # of the official mini_val
CONFIG = configs_dir() / "detection" / "objdet-dos-v1m1-0c-nuscenes-sc.py"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The scene's tables, with what is missing made up, and infos of it; scans are links."""
    return write_root(REAL, tmp_path_factory.mktemp("nuscenes") / "root", val=SCENE)


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
