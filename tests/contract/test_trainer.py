"""The trainer does the same on both hosts: order of events, counts, files.

A toy training runs once through the command line of the active host (the embedded one by default,
Pointcept with DOS_HOST=pointcept), and the tests look at what it left.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dos_plugin.host import HOST

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
from toy_training import write_training  # noqa: E402

# 4 scenes, looped epoch / eval_epoch = 2 times, in batches of 2
EPOCHS, BATCHES, STEPS_AT_ONCE = 2, 4, 2


def train(config: Path, *options: str) -> None:
    """Run the host's training command; fail with its output if it fails."""
    arguments = ["--config-file", str(config), *(["--options", *options] if options else [])]
    if HOST.name == "minihost":
        from dos_plugin.minihost.launch import main

        main(arguments)
        return
    root = Path(sys.modules[HOST.name].__file__).parents[1]
    path = os.pathsep.join([str(TESTS), str(root)])
    done = subprocess.run(
        [sys.executable, "-m", "dos_plugin.cpu", "tools/train.py", *arguments],
        cwd=root,
        env=dict(os.environ, DOS_HOST=HOST.name, PYTHONPATH=path, OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    train(write_training(folder))
    return folder / "run"


@pytest.fixture(scope="module")
def events(run):
    return json.loads((run / "events.json").read_text())


def load(path):
    return torch.load(path, weights_only=False)


def test_order_of_events(events):
    epoch = ["before_epoch", *["before_step", "after_step"] * BATCHES, "after_epoch"]
    assert [e["event"] for e in events] == ["before_train", *epoch * EPOCHS, "after_train"]
    assert [e["iter"] for e in events if "iter" in e] == [0, 0, 1, 1, 2, 2, 3, 3] * EPOCHS
    assert [e["epoch"] for e in events if "epoch" in e] == [0, 0, 1, 1]
    assert all(e["training"] for e in events if e["event"] == "before_epoch")


def test_trainer_attributes_before_training(events):
    first = events[0]
    assert first["start_epoch"] == 0 and first["max_epoch"] == EPOCHS
    assert first["samples"] == 8 and first["batches"] == BATCHES
    assert first["total_steps"] == EPOCHS * BATCHES // STEPS_AT_ONCE
    assert first["groups"] == [2, 2]  # the head has its own learning rate
    assert not first["has_scaler"] and not first["has_val_loader"]


def test_model_hook_passes_the_moments_on(events):
    assert events[-1]["calls"] == ["before_train", *["after_step"] * (EPOCHS * BATCHES)]


def test_batches(events):
    for event in (e for e in events if e["event"] == "before_step"):
        assert event["keys"] == ["coord", "feat", "grid_coord", "grid_size", "name", "offset"]
        assert len(event["names"]) == 2
    names = [n for e in events if e["event"] == "before_step" for n in e["names"]]
    assert sorted(names[:8]) == sorted(names[8:]) == sorted([f"scene{i}" for i in range(4)] * 2)
    assert names[:8] != names[8:]  # shuffled anew in each epoch


def test_outputs_and_averages(events):
    done = [e for e in events if e["event"] == "after_step"]
    assert all(e["output"] == ["error", "loss"] for e in done)
    for first in (0, BATCHES):  # averages start anew with each epoch
        losses = [e["loss"] for e in done[first : first + BATCHES]]
        assert done[first + 1]["average"] == pytest.approx(sum(losses[:2]) / 2, rel=1e-6)
        assert done[first + 3]["average"] == pytest.approx(sum(losses) / 4, rel=1e-6)


def test_optimizer_steps_every_other_batch(events):
    before = [e["weight"] for e in events if e["event"] == "before_step"]
    after = [e["weight"] for e in events if e["event"] == "after_step"]
    changed = [a != b for a, b in zip(before, after, strict=True)]
    assert changed == [False, True] * (EPOCHS * BATCHES // STEPS_AT_ONCE)


def test_learning_rates_and_weight_decay(events):
    rates = [e["lr"] for e in events if e["event"] == "after_step"]
    # one-cycle over 4 steps: initial, peak after 1 (of 2 - 1), half way down, nearly final
    assert rates[0] == pytest.approx([0.001, 0.0005])
    assert rates[1] == rates[2] == pytest.approx([0.01, 0.005])
    assert rates[3] == rates[4] == pytest.approx([0.005005, 0.0025025])
    assert rates[5] == rates[6] == pytest.approx([0.00001, 0.000005])
    decay = [e["decay"] for e in events if e["event"] == "before_step"]
    # cosine over total_steps, counted in batches, then constant
    assert decay == pytest.approx([0.04, 0.0634314575, 0.12, 0.1765685425, *[0.2] * 4])


def test_checkpoint_files(run):
    files = sorted(path.name for path in (run / "model").iterdir())
    assert files == ["epoch_1.pth", "epoch_2.pth", "model_last.pth"]
    last, first = load(run / "model/model_last.pth"), load(run / "model/epoch_1.pth")
    assert set(last) == {
        "epoch", "state_dict", "optimizer", "scheduler", "scaler", "best_metric_value"
    }  # fmt: skip
    assert (first["epoch"], last["epoch"]) == (1, 2)
    names = ["body.0.bias", "body.0.weight", "head.bias", "head.weight"]
    assert sorted(last["state_dict"]) == names
    assert last["scaler"] is None and last["best_metric_value"] == -torch.inf
    assert last["scheduler"]["last_epoch"] == last["scheduler"]["total_steps"] == 4
    assert len(last["optimizer"]["param_groups"]) == 2


def test_config_of_the_run_reads_back(run):
    config = HOST.Config.fromfile(str(run / "config.py"))
    assert config.data.train.loop == 2 and config.seed == 3
    assert "total_steps" not in config.scheduler and "batch_size_per_gpu" not in config
    assert config.hooks[0]["type"] == "CheckpointLoader"


def test_log_lines(run):
    log = (run / "train.log").read_text()
    assert "Train: [1/2][1/4] Data " in log and "Train: [2/2][4/4] Data " in log
    lines = [line for line in log.splitlines() if "Train: [2/2][2/4]" in line]
    assert len(lines) == 1
    assert " loss: " in lines[0] and " error: " in lines[0] and lines[0].endswith("Lr: 0.00001")
    assert "Train result: loss: " in log


def test_tensorboard_scalars(run):
    events = pytest.importorskip("tensorboardX.proto.event_pb2")
    scalars = {}
    for path in run.glob("events.out.tfevents.*"):
        data, position = path.read_bytes(), 0
        while position < len(data):  # length (8), crc (4), payload, crc (4)
            length = int.from_bytes(data[position : position + 8], "little")
            event = events.Event.FromString(data[position + 12 : position + 12 + length])
            position += 16 + length
            for value in event.summary.value:
                scalars.setdefault(value.tag, []).append(event.step)
    assert set(scalars) == {
        "params/lr", "params/wd", "train_batch/loss", "train_batch/error", "train/loss",
        "train/error",
    }  # fmt: skip
    assert scalars["train_batch/loss"] == scalars["params/lr"] == list(range(1, 9))
    assert scalars["train/loss"] == [1, 2]


def test_resume_continues_after_the_epoch(run, tmp_path):
    checkpoint = run / "model/epoch_1.pth"
    options = [f"weight={checkpoint}", "resume=True", f"save_path={tmp_path}"]
    train(run / "config.py", *options)
    events = json.loads((tmp_path / "events.json").read_text())
    assert events[0]["start_epoch"] == 1
    assert [e["epoch"] for e in events if "epoch" in e] == [1, 1]
    assert load(tmp_path / "model/model_last.pth")["scheduler"]["last_epoch"] == 4
    assert not (tmp_path / "config.py").exists()


def test_weights_load_under_another_name(run, tmp_path):
    config = run.parent / "toy.py"
    train(
        config,
        f"weight={run / 'model/model_last.pth'}",
        "hooks.0.keywords=module.head",
        "hooks.0.replacement=module.head",
        f"save_path={tmp_path}",
        "optimizer.lr=0.0",
        "scheduler.max_lr=1e-30,1e-30",
    )
    old, new = load(run / "model/model_last.pth"), load(tmp_path / "model/model_last.pth")
    for key, value in old["state_dict"].items():
        assert torch.allclose(value, new["state_dict"][key], atol=1e-12), key
