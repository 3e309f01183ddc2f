"""The benchmarks run as typed, at tiny sizes, and write the documented keys."""

import argparse
import functools
import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from dos_plugin.cpu.checkout import find_pointcept
from dos_plugin.probing.compare import probe_run
from dos_plugin.probing.scans import ScanSource
from dos_plugin.runs.run import open_run
from tests.tiny_run import write_run, write_scans

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import by_place  # noqa: E402
import common  # noqa: E402
import detection  # noqa: E402
import detection_kitti  # noqa: E402
import loss  # noqa: E402
import matching  # noqa: E402
import orders  # noqa: E402
import real  # noqa: E402
import sinkhorn  # noqa: E402
import views  # noqa: E402

MB = 2**20


class TestCommon:
    def test_sides_alternate_after_the_warmup(self):
        calls: list[str] = []
        sides = {name: functools.partial(calls.append, name) for name in "ab"}
        times = common.alternate(sides, repeats=3, warmup=1)
        assert "".join(calls) == "abbaabba"
        assert {name: len(taken) for name, taken in times.items()} == {"a": 3, "b": 3}
        assert all(second >= 0 for taken in times.values() for second in taken)

    @pytest.mark.parametrize("sampled", [False, True])
    def test_extra_memory_is_the_peak_without_the_inputs(self, sampled):
        # 40 MiB of inputs; the work holds 30 MiB, then 60 MiB, and returns with nothing.
        work = functools.partial(sampled_work if sampled else peak_work, 30 * MB)
        prepare = functools.partial(inputs, 40 * MB)
        extra = common.extra_peak_memory(work, prepare)
        assert 58 * MB < extra < 66 * MB

    def test_no_ratio_to_what_was_too_small_to_measure(self):
        assert common.ratio(1.5, 3.0) == 0.5
        assert common.ratio(1.5, 0.0) is None

    def test_table_and_json(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / "x.py"), "--seed", "1"])
        rows = [{"side": "ours", "s": 0.123456, "n": 10}, {"side": "other", "s": None, "n": 9}]
        common.print_table(rows)
        assert capsys.readouterr().out == (
            "side        s   n\nours   0.1235  10\nother       -   9\n"
        )
        common.write_json(None, rows, {})
        common.write_json(tmp_path / "new" / "x.json", rows, {"ratio": 2.0})
        report = json.loads((tmp_path / "new" / "x.json").read_text())
        assert set(report) == {"machine", "command", "rows", "summary"}
        assert report["rows"] == rows and report["summary"] == {"ratio": 2.0}
        assert report["command"] == "python benchmarks/x.py --seed 1"
        assert report["machine"]["numpy"] == np.__version__
        assert report["machine"]["cores"] >= 1


def inputs(size: int) -> tuple[np.ndarray]:
    return (np.ones(size, dtype=np.uint8),)


def peak_work(size: int, array: np.ndarray) -> None:
    first = np.ones(size, dtype=np.uint8)
    second = np.ones(size, dtype=np.uint8)
    assert len(array) and len(first) == len(second)


def sampled_work(size: int, array: np.ndarray) -> None:
    """Measures itself by sampling: what the parent sees is the same peak."""
    assert 28 * MB < common._sampled_peak(slow_work, (size,)) < 36 * MB
    peak_work(size, array)


def slow_work(size: int) -> None:
    array = np.ones(size, dtype=np.uint8)
    time.sleep(0.1)
    assert len(array)


def run(script, monkeypatch, tmp_path, *arguments: str) -> dict:
    """Run a script's main in this process and read its JSON."""
    path = tmp_path / "result.json"
    name = str(BENCHMARKS / f"{script.__name__}.py")
    monkeypatch.setattr(sys, "argv", [name, *arguments, "--json", str(path)])
    monkeypatch.setenv("DOS_HOST", "minihost")
    script.main()
    return json.loads(path.read_text())


@pytest.mark.parametrize("script", [matching, views])
def test_help_says_what_is_compared(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        script.main()
    assert script.__doc__.strip()[:200] in capsys.readouterr().out


def test_shuffled_boxes_are_those_of_other_scans(tmp_path):
    scenes = [tmp_path / "few/train" / f"scene-{index}" for index in range(3)]
    for index, scene in enumerate(scenes):
        scene.mkdir(parents=True)
        for key in ("coord", "boxes", "instance"):
            np.save(scene / f"{key}.npy", np.full(2, index))
    for seed in range(4):
        root = detection.shuffle_boxes(tmp_path / "few", seed)
        taken = [int(np.load(root / "train" / s.name / "boxes.npy")[0]) for s in scenes]
        assert sorted(taken) == [0, 1, 2] and all(a != b for a, b in enumerate(taken))
        for index, scene in enumerate(scenes):
            folder = root / "train" / scene.name
            assert np.load(folder / "coord.npy")[0] == index
            assert not (folder / "instance.npy").exists()  # it would count the wrong points


def test_frames_of_kitti(tmp_path):
    """Points that the camera sees; cars and what is no background; drives apart."""
    for name in ("velodyne", "label_2", "calib"):
        (tmp_path / "training" / name).mkdir(parents=True)
    (tmp_path / "frames.json").write_text(json.dumps({"a": ["000000"], "b": ["000001"]}))
    scan = [[10, 0, 0, 0.5], [-10, 0, 0, 0.5], [10, 30, 0, 0.5], [10, -8, 2, 0.25]]
    calib = (
        "P2: 700 0 600 0 0 700 180 0 0 0 1 0\nR0_rect: 1 0 0 0 1 0 0 0 1\n"
        "Tr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 0\n"
    )
    row = "{} 0 0 0 0 0 9 9 1.5 1.6 4.0 -2 1 20 -1.5707963"
    labels = "\n".join(row.format(name) for name in ("Car", "Van", "DontCare"))
    for name in ("000000", "000001"):
        np.array(scan, np.float32).tofile(tmp_path / f"training/velodyne/{name}.bin")
        (tmp_path / f"training/calib/{name}.txt").write_text(calib)
        (tmp_path / f"training/label_2/{name}.txt").write_text(labels)
    drives = detection_kitti.write_frames(tmp_path, tmp_path / "frames")
    root = detection_kitti.split(tmp_path / "frames", drives, "b", tmp_path / "root")
    assert [p.name for p in (root / "train").iterdir()] == ["000000"]
    assert [p.name for p in (root / "val").iterdir()] == ["000001"]
    scene = root / "val/000001"
    assert np.load(scene / "coord.npy").tolist() == [[10, 0, 0], [10, -8, 2]]
    assert np.load(scene / "strength.npy").tolist() == [[0.5], [0.25]]
    expected = [[20, 2, -0.25, 4.0, 1.6, 1.5, 0, kind] for kind in (0, 1)]
    np.testing.assert_allclose(np.load(scene / "boxes.npy"), expected, atol=1e-6)


def test_detection_from_logs(monkeypatch, tmp_path, capsys):
    """A run that has left a log is read and not repeated."""
    (tmp_path / "data/train/scene-0").mkdir(parents=True)
    np.save(tmp_path / "data/train/scene-0/coord.npy", np.zeros((1, 3)))
    for side, value in (("DOS", 0.3), ("random", 0.1)):
        (tmp_path / f"{side}-0.log").write_text(
            f"Val result: mAP/NDS 0.0100/0.0100.\nVal result: mAP/NDS {value:.4f}/0.2500.\n"
        )
    arguments = ["--data", str(tmp_path / "data"), "--out", str(tmp_path), "--fraction", "1"]
    report = run(detection, monkeypatch, tmp_path, *arguments, "--seeds", "0", "--sides", "DOS",
                 "random")  # fmt: skip
    assert report["summary"]["mAP DOS"] == pytest.approx(30)
    assert report["summary"]["gains in mAP"] == pytest.approx([20])
    assert "random-0: mAP 10.00, NDS 25.00" in capsys.readouterr().out


@pytest.mark.parametrize("group", [("08",), ("08", "02", "05"), ("02", "05"), ("10",)])
def test_held_out_places_are_in_no_training_sequence(tmp_path, group):
    source = tmp_path / "semantic_kitti/dataset/sequences"
    for place in real.PLACES:
        (source / place / "velodyne").mkdir(parents=True)
    args = argparse.Namespace(data=tmp_path, out=tmp_path / "out")
    bench = real.Bench(args, group, seed=0)
    for val in (*group, next(p for p in real.PLACES if p not in group)):  # or an inner validation
        sequences = bench.root(val) / "dataset/sequences"
        assert sorted(path.name for path in sequences.iterdir()) == real.PLACES
        taken = {p.name: p.resolve().name for p in sequences.iterdir() if p.is_symlink()}
        assert taken.pop("08") == val
        assert sorted(taken.values()) == sorted(set(real.PLACES) - {*group, val})
        assert all((sequences / name / "velodyne").is_dir() for name in real.PLACES)
    assert bench.scans == 10 * (11 - len(group))


@pytest.mark.parametrize("size", [None, 1500])
def test_rows_of_real_scans_have_the_demos_recipe(size):
    demo = runpy.run_path(str(real.DEMO))
    augmented = demo["transform"][2]["view_transform"]
    for row, config in real.PRETRAININGS.items():
        model, transform = real.in_the_demo(config, size, real.model_of(*real.CHANNELS))
        views = next(t for t in transform if "max_size" in t)
        assert views["max_size"] == (size or 4000)
        assert model["backbone"]["enc_channels"] == [*demo["model"]["backbone"]["enc_channels"]]
        assert model["up_cast_level"] == demo["model"]["up_cast_level"]
        if row.startswith("Sonata"):
            assert views["local_transform"] == [t for t in augmented if t["type"] != "GridSample"]
            assert model["head_in_channels"] == sum(model["backbone"]["enc_channels"])
        else:
            assert views["view_transform"] == augmented
            assert model["backbone_out_channels"] == sum(model["backbone"]["enc_channels"])


@pytest.mark.parametrize("row", ["DOS", "Sonata, equal steps"])
def test_weights_of_any_scans_are_probed_on_semantic_kitti(tmp_path, row):
    shutil.copy(real.DEMO, tmp_path / "config.py")  # a run on files of `dos-plugin ingest`
    bench = real.Bench(argparse.Namespace(channels=(32, 64)), ("08",), seed=0)
    config = Config.fromfile(bench.probed_as(tmp_path, real.PRETRAININGS[row]))
    assert (config.data.train.type, config.data.train.split) == ("SemanticKITTIDataset", "train")
    assert config.model.backbone.enc_channels == [32, 64]
    assert tuple(config.data.names) == tuple(real.CLASSES)


def test_places_are_scored_as_the_probe_does(tmp_path, monkeypatch):
    roots = [tmp_path / "a", tmp_path / "b"]
    for root in roots:
        write_scans(root, "train", 2)
        write_scans(root, "val", 1 + roots.index(root))
    checkpoint = write_run(tmp_path / "run", roots[0]) / "model/model_last.pth"
    found = run(by_place, monkeypatch, tmp_path, str(checkpoint), *map(str, roots),
                "--sources", "student", "raw")  # fmt: skip
    for root, *scores in zip(roots, found["student"], found["raw"]):
        opened = open_run(checkpoint)
        scans = [list(ScanSource(opened, root, split)) for split in ("train", "val")]
        expected = probe_run(opened, *scans, sources=("student", "raw"), knn=False)
        for entry, name in zip(scores, ("student", "raw")):
            assert entry["miou"] == pytest.approx(expected[name]["miou"])
            assert entry["iou"] == pytest.approx(expected[name]["iou"])


SMALL_VIEWS = ("--columns", "100", "--scans", "2", "--repeats", "1", "--warmup", "0")


class TestViews:
    def test_without_the_host(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(views, "find_pointcept", lambda: None)
        report = run(views, monkeypatch, tmp_path, *SMALL_VIEWS)
        assert "no Pointcept checkout" in capsys.readouterr().out
        assert [(row["side"], row["workers"]) for row in report["rows"]] == [
            ("ours", 1),
            ("ours", 2),
        ]
        assert report["summary"] == dict.fromkeys(views.SUMMARY)
        assert all(row["scans_per_s"] > 0 for row in report["rows"])

    @pytest.mark.skipif(
        find_pointcept() is None,
        reason="no Pointcept checkout at POINTCEPT_ROOT or ~/.cache/dos-plugin/Pointcept",
    )
    def test_beside_the_real_host_on_a_scan_of_ones_own(self, tmp_path):
        rng = np.random.default_rng(0)
        points = rng.uniform(0, [20, 20, 3, 1], (3000, 4)).astype(np.float32)
        points.tofile(tmp_path / "scan.bin")
        command = [sys.executable, "benchmarks/views.py", *SMALL_VIEWS, "--workers", "1"]
        files = ["--scan", str(tmp_path / "scan.bin"), "--json", str(tmp_path / "x.json")]
        done = subprocess.run(
            [*command, *files],
            cwd=BENCHMARKS.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        report = json.loads((tmp_path / "x.json").read_text())
        assert all(report["summary"][key] > 0 for key in views.SUMMARY)
        points = {row["side"]: row["points_of_views"] for row in report["rows"]}
        assert set(points) == {"ours", *views.SUMMARY.values()}
        # The same sizes: two views of 0.4 to 1.0 of the scan, four more of 0.1 to 0.4.
        assert 0.8 * 2900 < points["ours"] <= 2 * 3000
        assert points["ours"] < points["multiview 2g4l"] <= 2 * 3000 + 4 * 0.4 * 3000


class TestMatching:
    def test_ids_are_exact(self, monkeypatch, tmp_path):
        arguments = ("--columns", "300", "--clouds", "2", "--repeats", "1", "--device", "cpu")
        report = run(matching, monkeypatch, tmp_path, *arguments)
        summary = report["summary"]
        assert summary["wrong_fraction"] == summary["missed_fraction"] == 0
        assert summary["speedup_vs_kdtree"] > 0 and summary["speedup_vs_pointops"] is None
        rows = {(row["level"], row["side"]): row for row in report["rows"]}
        assert set(rows) == {(level, side) for level in matching.LEVELS for side in SIDES}
        for level in matching.LEVELS:
            assert 0 < rows[level, "ids (ours)"]["matched"] <= 1

    def test_truth_finds_what_is_wrong_and_what_is_missed(self):
        # Cloud 0: ids 5 and 6 in one row, 7 alone. The other view has 6, 7 and 9 of cloud 0, and
        # 5 of cloud 1, each a row.
        here = self.view(ids=[5, 6, 7], cloud=[0, 0, 0], row=[0, 0, 1], row_cloud=[0, 0])
        there = self.view(
            ids=[6, 7, 9, 5], cloud=[0, 0, 0, 1], row=[0, 1, 2, 3], row_cloud=[0, 0, 0, 1]
        )
        points = matching.Truth(here, there, "points")
        rows = matching.Truth(here, there, "rows")

        def judge(truth, *found):
            return matching.judge([truth], [pairs(*found)])

        assert judge(points, (1, 0), (2, 1)) == dict(matched=2 / 3, wrong=0, missed=0)
        assert judge(points, (0, 3), (1, 0)) == dict(matched=2 / 3, wrong=0.5, missed=0.5)
        assert judge(rows, (0, 0), (1, 1)) == dict(matched=1, wrong=0, missed=0)
        assert judge(rows, (1, 2)) == dict(matched=0.5, wrong=1, missed=0.5)
        both = matching.judge([points, rows], [pairs((1, 0), (2, 1)), pairs((1, 2))])
        assert both == dict(matched=3 / 5, wrong=1 / 3, missed=1 / 4)

        views = matching.Views(here, here, there, seen=torch.arange(3))
        assert matching.judge([points], matching.by_ids(views, "points")) == dict(
            matched=2 / 3, wrong=0, missed=0
        )
        truths = [matching.Truth(here, target, "rows") for target in views.targets("rows")]
        assert len(truths) == 2
        assert matching.judge(truths, matching.by_ids(views, "rows")) == dict(
            matched=1, wrong=0, missed=0
        )

    def test_neighbours_stay_in_their_cloud_and_below_the_radius(self):
        here = self.view(ids=[0, 1, 0], cloud=[0, 0, 1], row=[0, 1, 2], row_cloud=[0, 0, 1])
        there = self.view(ids=[3, 4], cloud=[0, 1], row=[0, 1], row_cloud=[0, 1])
        here = here._replace(origin=torch.tensor([[0.0, 0, 0], [9, 0, 0], [0, 0, 0]]))
        there = there._replace(origin=torch.tensor([[0.1, 0, 0], [0, 0.3, 0]]))
        match = matching.by_kdtree(here, there, "points", radius=0.32)
        assert [side.tolist() for side in match] == [[0, 2], [0, 1]]

    def view(self, ids, cloud, row, row_cloud) -> matching.View:
        integers = map(torch.tensor, (ids, cloud, row, row_cloud))
        ids, cloud, row, row_cloud = integers
        return matching.View(
            ids, cloud, torch.zeros(len(ids), 3), row, row_cloud, torch.zeros(len(row_cloud), 3)
        )


SIDES = ("ids (ours)", "k-d tree")


def pairs(*rows: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    here, there = torch.tensor(rows).T
    return here, there


def test_loss(monkeypatch, tmp_path):
    sizes = "--sizes", "200", "400", "--prototypes", "16", "--more-prototypes", "32"
    report = run(loss, monkeypatch, tmp_path, *sizes, "--no-compile", "--repeats", "1")
    assert {"max_rel_error", "exponent_n", "exponent_k"} <= set(report["summary"])
    assert report["summary"]["max_rel_error"] < 1e-5
    assert [(row["n"], row["k"]) for row in report["rows"]] == [(200, 16), (400, 16), (400, 32)]
    assert {"dense_s", "ours_s", "floor_s", "dense_mb", "ours_mb"} <= set(report["rows"][0])


def test_sinkhorn(monkeypatch, tmp_path):
    sizes = "--points", "300", "--prototypes", "16", "--iterations", "3", "--ranks", "2"
    report = run(sinkhorn, monkeypatch, tmp_path, *sizes, "--repeats", "1")
    assert report["summary"]["max_rel_error"] < 1e-5
    alone, shared = report["rows"]
    assert shared["ours_bytes"] == 3 * 16 * 8  # iterations, prototypes, float64
    assert {"matrix_s", "ours_s", "matrix_mb", "ours_mb"} <= set(alone)


def test_orders(monkeypatch, tmp_path, capsys):
    """Kept orders give the same bits, and those of the poolings are what is left to a config."""
    from tests.exported_runs import BACKBONES, make_run
    from tests.tiny_run import write_scans

    write_scans(tmp_path / "data", "train", 1)
    run = make_run(tmp_path, BACKBONES["m2"])
    scan = next((tmp_path / "data/train").iterdir())
    points = [
        np.load(scan / f"{key}.npy").reshape(-1, w) for key, w in (("coord", 3), ("strength", 1))
    ]
    np.concatenate(points, axis=1).astype(np.float32).tofile(tmp_path / "scan.bin")
    monkeypatch.setattr(sys, "argv", ["orders.py", str(run.checkpoint), str(tmp_path / "scan.bin")])
    orders.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[-3:]]
    assert [row[-1] == "100% |" for row in rows] == [False, False, True]
    assert rows[2][1:3] == ["1.0000", "1.0000"]
