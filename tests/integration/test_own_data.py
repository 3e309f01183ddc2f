"""Own scans as a user brings them: ingest, look at their density, take a few, pretrain."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

pytest.importorskip("mmengine", reason="the embedded host needs the extra 'demo'")

from tests.tiny_run import write_config, write_scans


def dos_plugin(*words) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dos_plugin.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Eight scans as .bin files with .label files, one scan empty and one with a bad label."""
    root = tmp_path_factory.mktemp("scans")
    write_scans(root / "made", "train", 8)
    (root / "velodyne").mkdir()
    (root / "labels").mkdir()
    for index in range(8):
        made = root / f"made/train/scan-{index}"
        rows = np.hstack([np.load(made / "coord.npy"), np.load(made / "strength.npy")])
        label = np.array([40, 10, 80], "<u4")[np.load(made / "segment.npy")]
        if index == 3:
            rows = rows[:0]
        if index == 5:
            label[7] = 99
        rows.astype("<f4").tofile(root / f"velodyne/{index:06d}.bin")
        label.tofile(root / f"labels/{index:06d}.label")
    (root / "map.yaml").write_text("40: 0\n10: 1\n80: 2\n")
    return root


@pytest.fixture(scope="module")
def ingested(scans):
    labels = "--labels", "{dir}/../labels/{stem}.label", "--label-map", scans / "map.yaml"
    out = scans / "root"
    return out, dos_plugin("ingest", scans / "velodyne", "--out", out, *labels, "--workers", 2)


def test_ingest_leaves_out_bad_scans_and_writes_the_rest(scans, ingested):
    out, done = ingested
    assert done.returncode == 2
    assert "6 scans with 12,600 points written" in done.stdout
    skipped = done.stderr[done.stderr.index("dos-plugin ingest: 2 files skipped") :].splitlines()
    assert len(skipped) == 3
    assert skipped[1].endswith("000003.bin: no point, the file is empty")
    assert skipped[2].endswith("000005.bin: label 99 (1 points): not in --label-map")
    for index in (0, 1, 2, 4, 6, 7):
        for name in ("coord", "strength", "segment"):
            made = np.load(scans / f"made/train/scan-{index}/{name}.npy")
            found = np.load(out / f"train/{index:06d}/{name}.npy")
            assert found.dtype == made.dtype and np.array_equal(found, made)


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_nothing_half_written_and_the_next_run_goes_on(tmp_path, workers):
    """A named pipe as the last scan holds the command up until the signal is sent."""
    rng = np.random.default_rng(0)
    files = [tmp_path / f"in/{number}.bin" for number in range(9)]
    (tmp_path / "in").mkdir()
    content = rng.uniform(0, 1, (200, 4)).astype("<f4").tobytes()
    for file in files:
        file.write_bytes(content)
    pipe = tmp_path / "in/9.bin"
    os.mkfifo(pipe)
    words = [*map(str, [*files, pipe]), "--format", "kitti", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "dos_plugin.cli", "ingest", *words, "--workers", str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        pipe.write_bytes(content)  # for the first of the two passes
        scenes = tmp_path / "out/train"
        while len(list(scenes.glob("*"))) < 8:  # of which the last pool job may hold up one
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        if workers > 1:
            pipe.write_bytes(content)  # a worker ends the scan that it has begun
        assert process.wait(60) == 130
    done = list(scenes.iterdir())
    assert not (tmp_path / "out/.incomplete").exists()
    for folder in done:
        assert sorted(path.name for path in folder.iterdir()) == ["coord.npy", "strength.npy"]
    pipe.unlink()
    again = dos_plugin("ingest", *files, "--format", "kitti", "--out", tmp_path / "out")
    assert again.returncode == 0
    left = 9 - len({folder.name for folder in done} - {"9"})
    assert f"{left} scans with" in again.stdout and f"{9 - left} were there" in again.stdout


def test_density_of_what_was_ingested(ingested):
    done = dos_plugin("density", ingested[0], "--grid-size", "0.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 scans of 2,100 points")
    assert "from the origin: 0.05" in done.stdout or "from the origin: -0.05" in done.stdout


def test_pretraining_starts_on_a_split_of_it(ingested, tmp_path):
    root = ingested[0]
    done = dos_plugin("split", root, "--fraction", "0.67", "--seed", "1")
    assert done.returncode == 0, done.stderr
    few = root / "few/0.67-seed1"
    assert f"--options data.train.data_root={few}\n" in done.stdout
    assert len(json.loads((few / "split.json").read_text())["scans"]) == 4
    config = write_config(tmp_path / "run", root)
    options = "--options", f"data.train.data_root={few}", "num_worker=0"
    done = dos_plugin("train", "--config-file", config, *options)
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-3000:]
    assert "4 samples in" in log
    saved = torch.load(tmp_path / "run/model/model_last.pth", weights_only=False)
    steps = {float(state["step"]) for state in saved["optimizer"]["state"].values()}
    assert steps == {2.0}  # of two scans each
