"""From info files of the host to nuscenes-devkit's own evaluation and back, on made-up tables."""

import json
import pickle

import numpy as np
import pytest

import dos_plugin.register  # noqa: F401
from dos_plugin.detection.native.dataset import NUSCENES_CLASSES
from dos_plugin.detection.native.metric import Scan, nuscenes_metrics
from dos_plugin.detection.native.submission import submission
from dos_plugin.host import HOST
from tests.nuscenes_tables import CLASSES, write_nuscenes

pytest.importorskip("nuscenes", reason="no nuscenes-devkit: make detection-env")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Tables, and beside them the infos that Pointcept's script would make of them."""
    root = write_nuscenes(tmp_path_factory.mktemp("nuscenes") / "raw")
    (root.parent / "info").mkdir()
    content = pickle.loads((root / "nuscenes_infos_val.pkl").read_bytes())
    infos = []
    for scan in content["data_list"]:
        things = [thing for thing in scan["instances"] if thing["num_lidar_pts"] > 0]
        boxes = [[*thing["bbox_3d"], *thing["velocity"]] for thing in things]
        infos.append(dict(
            token=scan["token"], lidar_token=scan["token"] + "-scan",
            lidar_path="samples/LIDAR_TOP/" + scan["lidar_points"]["lidar_path"],
            ref_from_car=np.linalg.inv(scan["lidar_points"]["lidar2ego"]),
            car_from_global=np.linalg.inv(scan["ego2global"]),
            gt_boxes=np.array(boxes),
            gt_names=np.array([CLASSES[thing["bbox_label_3d"]] for thing in things]),
            num_lidar_pts=np.array([thing["num_lidar_pts"] for thing in things]),
        ))  # fmt: skip
    (root.parent / "info/nuscenes_infos_10sweeps_val.pkl").write_bytes(pickle.dumps(infos))
    return root


@pytest.fixture(scope="module")
def samples(root):
    cfg = dict(type="DOS-NuScenesBoxDataset", split="val", data_root=str(root.parent))
    data = HOST.DATASETS.build(dict(cfg, transform=[]))
    return [data[i] for i in range(len(data))]


def official(root, content, folder):
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    file = folder / "submission.json"
    file.write_text(json.dumps(content))
    tables = NuScenes("v1.0-mini", str(root), verbose=False)
    evaluation = DetectionEval(
        tables, config_factory("detection_cvpr_2019"), str(file), "mini_val", str(folder), False
    )
    return evaluation.evaluate()[0].serialize()


def scored(root, samples, predicted, folder):
    tokens = [sample["token"] for sample in samples]
    poses = np.concatenate([sample["pose"] for sample in samples])
    content = submission(tokens, predicted, poses, NUSCENES_CLASSES)
    labelled = [Scan(s["boxes"], np.ones(len(s["boxes"])), s["box_labels"]) for s in samples]
    centres = np.concatenate([sample["ego"] for sample in samples])
    ours = nuscenes_metrics(predicted, labelled, NUSCENES_CLASSES, centres=centres)
    return official(root, content, folder), ours


def perfect(sample):
    count = len(sample["boxes"])
    return Scan(sample["boxes"], np.linspace(1, 0.5, count), sample["box_labels"])


def test_perfect_boxes(root, samples, tmp_path):
    theirs, ours = scored(root, samples, [perfect(sample) for sample in samples], tmp_path)
    assert theirs["mean_ap"] == pytest.approx(1) and ours["mAP"] == pytest.approx(1)
    assert theirs["nd_score"] == pytest.approx(1, abs=0.02)  # attributes are guessed by speed
    assert ours["NDS"] == pytest.approx(0.9, abs=1e-3)


def test_the_same_figures_of_noisy_boxes(root, samples, tmp_path):
    rng = np.random.default_rng(0)
    predicted = []
    for sample in samples:
        scan = perfect(sample)
        boxes = np.concatenate([scan.boxes, scan.boxes[::3]])
        boxes[:, :3] += rng.normal(0, 0.6, (len(boxes), 3))
        boxes[:, 3:6] *= rng.uniform(0.7, 1.3, (len(boxes), 3))
        boxes[:, 6:] += rng.normal(0, 0.4, (len(boxes), 3))
        labels = np.concatenate([scan.labels, scan.labels[::3]])
        predicted.append(Scan(boxes, rng.random(len(boxes)), labels))
    theirs, ours = scored(root, samples, predicted, tmp_path)
    assert 0.2 < ours["mAP"] < 0.99
    assert theirs["mean_ap"] == pytest.approx(ours["mAP"], abs=1e-6)
    for name in NUSCENES_CLASSES:
        ap = np.mean(list(theirs["label_aps"][name].values()))
        assert ours[f"AP/{name}"] == pytest.approx(ap, abs=1e-6)
    keys = dict(mATE="trans_err", mASE="scale_err", mAOE="orient_err", mAVE="vel_err")
    for key, their in keys.items():
        assert ours[key] == pytest.approx(theirs["tp_errors"][their], abs=1e-6), key


@pytest.mark.parametrize("change", ["swap", "mirror", "token"])
def test_wrong_boxes_are_found_out(change, root, samples, tmp_path):
    predicted = []
    for sample in samples:
        scan = perfect(sample)
        boxes = scan.boxes.copy()
        if change == "swap":
            boxes[:, [3, 4]] = boxes[:, [4, 3]]
        elif change == "mirror":
            boxes[:, 6] *= -1
        predicted.append(Scan(boxes, scan.scores, scan.labels))
    if change == "token":
        wrong = [dict(sample, token=sample["name"]) for sample in samples]
        with pytest.raises(AssertionError):
            scored(root, wrong, predicted, tmp_path)
        return
    theirs, ours = scored(root, samples, predicted, tmp_path)
    error, mine = ("scale_err", "mASE") if change == "swap" else ("orient_err", "mAOE")
    assert theirs["tp_errors"][error] > 0.1 and ours[mine] > 0.1
