"""dos-plugin report, as it is typed: a run with this plugin's hooks, and what is left of it."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.tiny_run import CONFIG, GRID, write_scans

pytest.importorskip("tensorboardX", reason="event files are part of a run")

HOOKS = """[
    dict(type="CheckpointLoader"), dict(type="ModelHook"), dict(type="IterationTimer"),
    dict(type="InformationWriter"), dict(type="CheckpointSaver"),
    dict(type="PrototypeMonitor", interval=1),
    dict(type="OnlineProbe", every=1, train_scans=2, val_scans=1, steps=20),
    dict(type="FeaturePicture", every=1),
]"""


def typed(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DOS_HOST": "minihost"}
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two epochs of one step on the embedded host."""
    root = tmp_path_factory.mktemp("report")
    for split, count in (("train", 2), ("val", 1)):
        write_scans(root / "data", split, count)
    text = CONFIG.format(run=root / "run", data=root / "data", grid=GRID)
    text = re.sub(r"(?m)^hooks = .*$", lambda _: f"hooks = {HOOKS}", text)
    text = re.sub(r"(?m)^(epoch|eval_epoch) = 1$", r"\1 = 2", text)
    config = root / "two-epochs.py"
    config.write_text(text)
    done = typed("dos_plugin.minihost", "--config-file", config)
    assert done.returncode == 0, done.stderr[-2000:]
    return root / "run"


def test_a_run_with_all_hooks(run):
    done = typed("dos_plugin.cli", "report", run, "--no-probe")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "missing: " not in done.stderr
    assert done.stdout.splitlines()[-1] == f"report: {run / 'report/report.html'}"
    content = json.loads((run / "report/report.json").read_text())
    page = (run / "report/report.html").read_text()
    assert content["state"] == "finished" and not content["missing"]
    assert list(content["probe_history"]["probe/linear_mIoU"]) == ["0", "1", "2"]
    assert content["verdict"]["level"] in ("learning", "not learning")
    assert "feature std" in " ".join(content["verdict"]["reasons"])
    for alt in ("Monitors over optimizer steps", "mIoU of the probes over epochs"):
        assert f'alt="{alt}"' in page
    for caption in ("epoch 0", "epoch 2", "All epochs"):
        assert f"<figcaption>{caption}</figcaption>" in page
    sources = re.findall(r'(?:src|href)="([^"]{0,22})', page)
    sources.remove("view.html")
    assert all(re.match(r"data:image/(png|gif);base64,", source) for source in sources)
    assert (run / "report/view.html").is_file()


def test_what_is_left_of_it(run, tmp_path):
    (tmp_path / "train.log").write_bytes((run / "train.log").read_bytes()[:-50])
    (tmp_path / "config.py").write_text("model = dict(")
    done = typed("dos_plugin.cli", "report", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("config.py", "model/model_last.pth", "events.out.tfevents.*"):
        assert f"missing: {name}: " in done.stderr
    page = (tmp_path / "report/report.html").read_text()
    assert "Loss over training batches" in page and "Monitors over optimizer steps" in page


def test_nothing_there(tmp_path):
    done = typed("dos_plugin.cli", "report", tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"dos-plugin report: error: {tmp_path}: nothing of a run there")
