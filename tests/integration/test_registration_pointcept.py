"""DOS in an unmodified Pointcept: pretrain, resume, probe, test, in every kind of process."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dos_plugin.cpu.checkout import find_pointcept, run_on_host
from dos_plugin.scenes import CLASS_NAMES, write_scenes
from dos_plugin.shipped import config_path

pytestmark = [
    pytest.mark.skipif(
        find_pointcept() is None,
        reason="no Pointcept checkout at POINTCEPT_ROOT or ~/.cache/dos-plugin/Pointcept",
    ),
    pytest.mark.skipif(torch.cuda.is_available(), reason="written for the CPU runner"),
]

DEMO = config_path("pretrain-dos-v1m1-9-demo")
PROBE = config_path("semseg-dos-v1m1-9a-demo-lin")
# 4 scenes in batches of 2, 10 epochs: 20 steps. A warm-up of exactly one step divides by zero in
# the host's OneCycleLR.
SHORT = ["batch_size=2", "epoch=10", "eval_epoch=10", "scheduler.pct_start=0.2"]
SHORT += ["data.train.transform.2.max_size=1200"]
SPUNET = """
_base_ = ["{demo}"]
save_path = "{save_path}"
batch_size = 2
epoch = {epoch}
eval_epoch = {epoch}
model = dict(
    backbone=dict(
        _delete_=True, type="SpUNet-v1m1", in_channels=2, num_classes=0, base_channels=8,
        channels=(8, 16, 16, 16, 16, 16, 16, 16), layers=(1,) * 8,
    ),
    teacher_custom=None,
    backbone_out_channels=16,
    up_cast_level=0,
)
scheduler = dict(pct_start=0.2)
data = dict(train=dict(data_root="{data}"))
hooks = [
    dict(type="CheckpointLoader"),
    dict(type="ModelHook"),
    dict(type="IterationTimer", warmup_iter=2),
    dict(type="InformationWriter"),
    dict(type="CheckpointSaver", save_freq=5),
]
"""
STEP = re.compile(r"Train: \[(\d+)/\d+\]\[(\d+)/\d+\].* loss: ([\d.]+) same_view_loss")
LOSS = re.compile(r"Train: \[\d+/\d+\]\[\d+/\d+\].* loss: ([\d.]+)")
RESULT = re.compile(r"Val result: mIoU/mAcc/allAcc ([\d.]+)/([\d.]+)/(\d\.\d+)")
# conftest.py names the embedded host; here the host is whichever the script imports.
ENV = {"OMP_NUM_THREADS": "1", "DOS_HOST": ""}


def run(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    done = run_on_host(*arguments, env=ENV, timeout=400, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done


def steps(folder: Path) -> list[tuple[int, int]]:
    """Epoch and batch of each step in the log of a run."""
    return [(int(e), int(b)) for e, b, _ in STEP.findall((folder / "train.log").read_text())]


def spunet_config(path: Path, data: Path, epoch: int, save_path: str) -> Path:
    path.write_text(SPUNET.format(demo=DEMO, data=data, epoch=epoch, save_path=save_path))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Synthetic streets, thinned to a sixth of their points."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, {"train": 4, "val": 2}, workers=1, progress=False)
    for folder in [f for split in ("train", "val") for f in (root / split).iterdir()]:
        for name in ("coord", "strength", "segment", "instance"):
            np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy")[::6])
    return root


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory) -> Path:
    """The demo's config, 20 steps."""
    folder = tmp_path_factory.mktemp("pretrained")
    options = [f"save_path={folder}", f"data.train.data_root={data}", "hooks.7.save_freq=5"]
    run("tools/train.py", "--config-file", DEMO, "--options", *options, *SHORT)
    return folder


@pytest.fixture(scope="module")
def checkout(data, tmp_path_factory) -> Path:
    """A copy of the checkout, for train.sh writes into it."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("pointcept", "tools", "scripts"):
        shutil.copytree(find_pointcept() / name, root / name)
    (root / "configs/dos").mkdir(parents=True)
    spunet_config(root / "configs/dos/small.py", data, 10, "exp/dos/small")
    return root


def train_sh(checkout: Path, *options: str) -> None:
    """scripts/train.sh with the CPU runner as its interpreter."""
    python = f"{sys.executable} -m dos_plugin.cpu"
    command = ["sh", "scripts/train.sh", "-p", python, "-g", "1", "-d", "dos", "-c", "small"]
    done = subprocess.run(
        [*command, "-n", "small", *options],
        cwd=checkout,
        env={**os.environ, **ENV},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def spunet(checkout) -> Path:
    """SpUNet pretrained for 20 steps through scripts/train.sh."""
    train_sh(checkout)
    return checkout / "exp/dos/small"


def check_run(folder: Path) -> None:
    assert steps(folder) == [(epoch, batch) for epoch in range(1, 11) for batch in (1, 2)]
    losses = [float(loss) for *_, loss in STEP.findall((folder / "train.log").read_text())]
    assert np.isfinite(losses).all() and min(losses) > 0  # divergences
    assert next(folder.glob("events.out.tfevents.*")).stat().st_size > 1000
    saved = torch.load(folder / "model/model_last.pth", weights_only=False)
    assert saved["epoch"] == 10 and saved["scheduler"]["last_epoch"] == 20
    state = saved["state_dict"]
    pairs = [(k, k.replace("student.", "teacher.", 1)) for k in state if k.startswith("student.")]
    backbone = [(s, t) for s, t in pairs if ".backbone." in s]
    assert len(backbone) > 50 and all(t in state for _, t in backbone)
    moved = [not torch.equal(state[s], state[t]) for s, t in backbone]
    assert sum(moved) > 50


def test_pretrains_with_ptv3(pretrained):
    check_run(pretrained)


def test_pretrains_with_spunet_through_train_sh(spunet):
    check_run(spunet)
    log = (spunet / "train.log").read_text()
    assert "save_path = 'exp/dos/small'" in log
    assert (spunet / "code/pointcept/__init__.py").is_file()


def test_resumes_from_the_dumped_config(pretrained, tmp_path):
    (tmp_path / "model").mkdir()
    weight = pretrained / "model/epoch_5.pth"
    options = ["resume=True", f"weight={weight}", f"save_path={tmp_path}"]
    run("tools/train.py", "--config-file", pretrained / "config.py", "--options", *options)
    assert steps(tmp_path) == [(epoch, batch) for epoch in range(6, 11) for batch in (1, 2)]
    saved = torch.load(tmp_path / "model/model_last.pth", weights_only=False)
    assert saved["epoch"] == 10 and saved["scheduler"]["last_epoch"] == 20
    assert {int(state["step"]) for state in saved["optimizer"]["state"].values()} == {20}


def test_train_sh_resumes(spunet, checkout):
    first = (spunet / "train.log").read_text()
    last = spunet / "model/model_last.pth"
    kept = last.read_bytes()
    shutil.copy(spunet / "model/epoch_5.pth", last)  # as if it had been stopped
    try:
        train_sh(checkout, "-r", "true")
        log = (spunet / "train.log").read_text()[len(first) :]
        assert "Resuming train at eval epoch: 5" in log
        assert STEP.findall(log)[0][:2] == ("6", "1")
        saved = torch.load(last, weights_only=False)
        assert saved["epoch"] == 10 and saved["scheduler"]["last_epoch"] == 20
    finally:
        last.write_bytes(kept)
        (spunet / "train.log").write_text(first)


@pytest.fixture(scope="module")
def answers(pretrained, spunet, tmp_path_factory) -> dict:
    """What registration_checks.py saw."""
    script = Path(__file__).with_name("registration_checks.py")
    done = run(script, DEMO, pretrained, spunet, PROBE, tmp_path_factory.mktemp("scratch"))
    return json.loads(done.stdout.splitlines()[-1])


def test_spawned_children_build_the_model_of_a_pickled_config(answers):
    assert answers["fresh"] == answers["dumped"] == "DOS"
    assert answers["copied"]


def test_workers_of_both_kinds_know_our_transforms(answers):
    keys = answers["workers"]
    assert keys["fork"] == keys["spawn"]
    assert {"view1_visible", "view2_point_id", "view1_feat", "view2_offset"} <= set(keys["fork"])


def test_sonata_is_not_disturbed(answers):
    assert not answers["known_before"] and answers["known_after"]
    assert len(answers["sonata_before"]) == 2 and all(0.5 < x < 20 for x in answers["sonata_after"])
    assert answers["sonata_before"] == answers["sonata_after"]


@pytest.mark.parametrize("backbone", ["PT-v3m2", "SpUNet-v1m1"])
def test_a_segmentor_loads_the_whole_backbone_and_nothing_else(answers, backbone):
    found = answers[backbone]
    assert found["missing"] == ["seg_head.weight", "seg_head.bias"]
    assert found["unexpected"] == []
    assert found["equal"] and found["tensors"] > 50


def test_linear_probe_trains_evaluates_and_is_tested(pretrained, data, tmp_path):
    probe = tmp_path / "probe"
    roots = [f"data.{split}.data_root={data}" for split in ("train", "val", "test")]
    weight = pretrained / "model/model_last.pth"
    options = [f"save_path={probe}", f"weight={weight}", "epoch=6", "eval_epoch=3", "batch_size=2"]
    run("tools/train.py", "--config-file", PROBE, "--options", *options, *roots)
    log = (probe / "train.log").read_text()
    assert "they keep random weights: 2 (seg_head.weight, seg_head.bias)" in log
    results = [tuple(map(float, found)) for found in RESULT.findall(log)]
    assert len(results) == 3 and all(0 <= value <= 1 for found in results for value in found)
    losses = [float(found) for found in LOSS.findall(log)]
    assert len(losses) == 12 and np.isfinite(losses).all()
    assert f"Class_14-{CLASS_NAMES[14]} Result" in log
    before = torch.load(weight, weights_only=False)["state_dict"]
    after = torch.load(probe / "model/model_best.pth", weights_only=False)["state_dict"]
    for key in (k for k in after if k.startswith("backbone.")):
        assert torch.equal(after[key], before[f"student.{key}"]), key  # frozen
    last = torch.load(probe / "model/model_last.pth", weights_only=False)
    head = last["optimizer"]["state"]  # the head alone is trained, in every step
    assert len(head) == 2 and all(state["exp_avg_sq"].any() for state in head.values())
    assert {int(state["step"]) for state in head.values()} == {12}

    tested = tmp_path / "tested"
    options = [f"weight={probe / 'model/model_best.pth'}", f"save_path={tested}"]
    run("tools/test.py", "--config-file", probe / "config.py", "--options", *options)
    (result,) = RESULT.findall((tested / "test.log").read_text())
    labels = [np.load(data / f"val/scene-0000{i}/segment.npy").ravel() for i in range(2)]
    predicted = [np.load(f).ravel() for f in sorted((tested / "result").glob("*_pred.npy"))]
    assert [len(p) for p in predicted] == [len(label) for label in labels]
    right = sum(((p == s) & (s >= 0)).sum() for p, s in zip(predicted, labels))
    assert float(result[2]) == pytest.approx(right / sum((s >= 0).sum() for s in labels), abs=1e-4)


def test_a_renamed_fork(data, tmp_path):
    root = tmp_path / "fork"
    for name in ("pointcept", "tools"):
        shutil.copytree(find_pointcept() / name, root / name)
    for path in root.rglob("*.py"):
        path.write_text(path.read_text().replace("pointcept", "lidar_zoo"))
    (root / "pointcept").rename(root / "lidar_zoo")
    folder = tmp_path / "run"
    config = spunet_config(tmp_path / "small.py", data, 1, str(folder))
    command = [sys.executable, "-m", "dos_plugin.cpu", "tools/train.py"]
    done = subprocess.run(
        [*command, "--config-file", config],
        cwd=root,
        env={**os.environ, **ENV, "DOS_HOST": "lidar_zoo", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert steps(folder) == [(1, 1), (1, 2)]


def test_the_oldest_supported_version(data, tmp_path):
    """SpUNet on v1.6.0; its PTv3 needs ocnn."""
    git = ["git", "-C", str(find_pointcept())]
    if subprocess.run([*git, "rev-parse", "-q", "--verify", "v1.6.0"]).returncode:
        pytest.skip("the checkout's history does not hold v1.6.0")
    root = tmp_path / "old"
    root.mkdir()
    archive = [*git, "archive", "v1.6.0", "pointcept", "tools"]
    with subprocess.Popen(archive, stdout=subprocess.PIPE) as packed:
        subprocess.run(["tar", "-x", "-C", str(root)], stdin=packed.stdout, check=True)
    folder = tmp_path / "run"
    config = spunet_config(tmp_path / "small.py", data, 1, str(folder))
    command = [sys.executable, "-m", "dos_plugin.cpu", "tools/train.py"]
    done = subprocess.run(
        [*command, "--config-file", config],
        cwd=root,
        env={**os.environ, **ENV, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert steps(folder) == [(1, 1), (1, 2)]
