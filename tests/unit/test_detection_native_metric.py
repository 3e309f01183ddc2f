"""The metric against torch-pointcloud and, where it is installed, nuscenes-devkit; a submission."""

import json

import numpy as np
import pytest
import torch
from torch_pointcloud.metrics.nuscenes import nuscenes_detection_metrics

from dos_plugin.detection.native.dataset import NUSCENES_CLASSES
from dos_plugin.detection.native.metric import RANGES, Scan, nuscenes_metrics
from dos_plugin.detection.native.submission import submission

NAMES = ("car", "pedestrian", "barrier", "traffic_cone", "bus")


def draw(seed, scans=6, names=NAMES):
    """Labelled boxes, and predictions around them: moved, doubled, invented, some missing."""
    rng = np.random.default_rng(seed)
    predicted, labelled = [], []
    for number in range(scans):
        count = 0 if number == 2 else 30
        boxes = np.hstack([
            rng.uniform(-45, 45, (count, 2)), rng.uniform(-1, 1, (count, 1)),
            rng.uniform(0.5, 5, (count, 3)), rng.uniform(-3, 3, (count, 1)),
            rng.normal(0, 2, (count, 2)),
        ])  # fmt: skip
        boxes[::7, 7:] = np.nan
        labels = rng.integers(-1, len(names) - 1, count)  # the last class is absent
        kept = np.concatenate([np.flatnonzero(rng.random(count) < 0.8), rng.permutation(count)[:8]])
        noise = rng.normal(0, [0.6, 0.6, 0.2, 0.1, 0.1, 0.1, 0.4, 0.5, 0.5], (len(kept), 9))
        found = boxes[kept] + noise
        found[:, 3:6] = np.abs(found[:, 3:6]) + 0.1
        found[:, 7:] = np.nan_to_num(found[:, 7:])
        invented = draw_invented(rng, 12)
        found = np.vstack([found, invented])
        own = np.concatenate([labels[kept], rng.integers(0, len(names), 12)])
        own[own < 0] = 0
        predicted.append(Scan(found, rng.random(len(found)), own))
        labelled.append(Scan(boxes, np.ones(count), labels))
    return predicted, labelled


def draw_invented(rng, count):
    return np.hstack([rng.uniform(-45, 45, (count, 3)), rng.uniform(0.5, 5, (count, 3)),
                      rng.uniform(-3, 3, (count, 3))])  # fmt: skip


def packed(scans):
    parts = dict(boxes=[], scores=[], labels=[], batch=[])
    for number, scan in enumerate(scans):
        kept = scan.labels >= 0
        parts["boxes"].append(scan.boxes[kept])
        parts["scores"].append(scan.scores[kept])
        parts["labels"].append(scan.labels[kept])
        parts["batch"].append(np.full(kept.sum(), number))
    return {key: torch.as_tensor(np.concatenate(value)) for key, value in parts.items()}


@pytest.mark.parametrize("seed", range(4))
def test_the_oracle_says_the_same(seed):
    predicted, labelled = draw(seed)
    ours = nuscenes_metrics(predicted, labelled, NAMES)
    theirs = nuscenes_detection_metrics(packed(predicted), packed(labelled), class_names=NAMES)
    assert 0.05 < ours["mAP"] < 0.9
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(float(value), abs=1e-6), key


@pytest.mark.parametrize("seed", range(2))
def test_the_devkit_says_the_same(seed):
    algorithms = pytest.importorskip("nuscenes.eval.detection.algo", reason="no nuscenes-devkit")
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.common.utils import center_distance
    from nuscenes.eval.detection.data_classes import DetectionBox

    names = NAMES[:4]
    predicted, labelled = draw(seed, names=names)
    ours = nuscenes_metrics(predicted, labelled, names, ranges={})

    def collect(scans):
        boxes = EvalBoxes()
        for number, scan in enumerate(scans):
            rows = [
                DetectionBox(
                    sample_token=str(number), translation=tuple(b[:3]), size=tuple(b[[4, 3, 5]]),
                    rotation=(np.cos(b[6] / 2), 0, 0, np.sin(b[6] / 2)), velocity=tuple(b[7:]),
                    detection_name=names[label], detection_score=float(score),
                )
                for b, score, label in zip(*scan) if label >= 0
            ]  # fmt: skip
            boxes.add_boxes(str(number), rows)
        return boxes

    found, true = collect(predicted), collect(labelled)
    for name in names:
        by_distance = {
            d: algorithms.accumulate(true, found, name, center_distance, d)
            for d in (0.5, 1.0, 2.0, 4.0)
        }
        ap = np.mean([algorithms.calc_ap(md, 0.1, 0.1) for md in by_distance.values()])
        assert ours[f"AP/{name}"] == pytest.approx(ap, abs=1e-6)
        for error, key in dict(ATE="trans_err", ASE="scale_err", AOE="orient_err",
                               AVE="vel_err").items():  # fmt: skip
            if f"{error}/{name}" in ours:
                value = algorithms.calc_tp(by_distance[2.0], 0.1, key)
                assert ours[f"{error}/{name}"] == pytest.approx(value, abs=1e-6), (name, error)


def test_perfect_and_nothing():
    _, labelled = draw(0)
    perfect = nuscenes_metrics(labelled, labelled, NAMES[:4], ranges={})
    assert perfect["mAP"] == pytest.approx(1) and perfect["mATE"] == 0
    assert perfect["NDS"] == pytest.approx(0.9)  # attributes are not predicted
    nothing = [Scan(np.zeros((0, 9)), np.zeros(0), np.zeros(0, int))] * len(labelled)
    for a, b in ((nothing, labelled), (labelled, nothing), (nothing, nothing)):
        scores = nuscenes_metrics(a, b, NAMES)
        assert scores["mAP"] == scores["NDS"] == 0 and scores["mAOE"] == 1
    with pytest.raises(ValueError, match="6 scans predicted, 5 labelled"):
        nuscenes_metrics(labelled, labelled[:5], NAMES)


def test_ranges_are_around_the_vehicle():
    box = np.array([[30.5, 0, 0, 1, 1, 1, 0, 0, 0]])
    scan = [Scan(box, np.ones(1), np.zeros(1, int))]
    assert nuscenes_metrics(scan, scan, ["barrier"])["mAP"] == 0
    nearer = nuscenes_metrics(scan, scan, ["barrier"], centres=np.array([[1.0, 0]]))
    assert nearer["mAP"] == pytest.approx(1)
    assert RANGES["car"] == 50


def test_submission():
    (scan, *_), _ = draw(1, names=NUSCENES_CLASSES)
    angle = 0.8
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0],
                     [0, 0, 1]])  # fmt: skip
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, (400, 1100, 2)
    scan.boxes[0, 7:] = np.nan
    content = json.loads(json.dumps(submission(["a"], [scan], pose[None], NUSCENES_CLASSES)))
    assert content["meta"]["use_lidar"] and set(content["results"]) == {"a"}
    rows = np.argsort(-scan.scores, kind="stable")
    for entry, row in zip(content["results"]["a"], rows, strict=True):
        box = scan.boxes[row]
        np.testing.assert_allclose(entry["translation"], turn @ box[:3] + [400, 1100, 2])
        np.testing.assert_allclose(entry["size"], box[[4, 3, 5]])  # width before length
        w, x, y, z = entry["rotation"]
        yaw = np.arctan2(2 * w * z, 1 - 2 * z * z)
        assert (x, y) == (0, 0)
        assert np.exp(1j * yaw) == pytest.approx(np.exp(1j * (box[6] + angle)))
        velocity = np.nan_to_num(turn[:2, :2] @ box[7:])
        np.testing.assert_allclose(entry["velocity"], velocity, atol=1e-9)
        name = NUSCENES_CLASSES[scan.labels[row]]
        assert entry["detection_name"] == name and entry["sample_token"] == "a"
        assert bool(entry["attribute_name"]) == (name not in ("barrier", "traffic_cone"))
    with pytest.raises(ValueError, match="no class cone"):
        submission([], [], pose[None], ["cone"])
    with pytest.raises(ValueError, match="come twice"):
        submission(["a", "a"], [scan, scan], pose[None], NUSCENES_CLASSES)
