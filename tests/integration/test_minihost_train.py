"""Trainings through the embedded host's command line: reproducible, resumable, clear when wrong."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("mmengine")

from dos_plugin.minihost.launch import main
from dos_plugin.minihost.trainer import Trainer

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
from toy_training import write_scene, write_training  # noqa: E402

DEMO = TESTS.parent / "configs/dos/pretrain-dos-v1m1-9-demo.py"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small tensors gain nothing from threads, and busy machines lose a lot."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_training(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def finished(config):
    """The folder of a finished run."""
    return train(config, config.parent / "run")


def train(config: Path, save_path: Path, *options: str) -> Path:
    arguments = ["--config-file", str(config), "--options", f"save_path={save_path}"]
    main([*arguments, "num_worker=0", *options])
    return save_path


def fail(capsys, config: Path, save_path: Path, *options: str) -> str:
    """Expect exit status 1; returns what the terminal showed."""
    with pytest.raises(SystemExit) as stopped:
        train(config, save_path, *options)
    assert stopped.value.code == 1
    shown = capsys.readouterr()
    return shown.out + shown.err


def checkpoint(run: Path, name: str = "model_last") -> dict:
    return torch.load(run / f"model/{name}.pth", weights_only=False)


def tensors(state, prefix=""):
    """All tensors and numbers of nested containers, by path."""
    if isinstance(state, dict):
        state = state.items()
    elif isinstance(state, (list, tuple)):
        state = enumerate(state)
    else:
        return {prefix: state}
    found = {}
    for key, value in state:
        found.update(tensors(value, f"{prefix}/{key}"))
    return found


def assert_same(first: dict, second: dict) -> None:
    a, b = tensors(first), tensors(second)
    assert a.keys() == b.keys()
    for key, value in a.items():
        same = torch.equal(value, b[key]) if torch.is_tensor(value) else value == b[key]
        assert same, key


def losses(run: Path) -> list[str]:
    """The numbers of the per-step log lines, without the times."""
    lines = (run / "train.log").read_text().splitlines()
    steps = [line.split("Train: ")[1] for line in lines if "Train: [" in line]
    return [step.split(" Data ")[0] + step.partition("loss: ")[2] for step in steps]


def test_same_seed_same_run_with_any_number_of_workers(config, finished, tmp_path):
    again = train(config, tmp_path / "again", "num_worker=2")
    assert losses(again) == losses(finished) and len(losses(finished)) == 8
    assert_same(checkpoint(again), checkpoint(finished))
    other = train(config, tmp_path / "other", "seed=4")
    assert losses(other) != losses(finished)


@pytest.mark.parametrize("amp", [(), ("enable_amp=True", "num_worker=1")], ids=["plain", "amp"])
def test_resuming_equals_running_through(config, tmp_path, amp):
    options = ("epoch=3", "eval_epoch=3", *amp)
    whole = train(config, tmp_path / "whole", *options)
    rest = train(
        config, tmp_path / "rest", "resume=True", f"weight={whole / 'model/epoch_1.pth'}", *options
    )
    assert len(losses(rest)) == 4 and losses(rest) == losses(whole)[2:]
    assert_same(checkpoint(rest), checkpoint(whole))
    if amp and torch.cuda.is_available():
        assert checkpoint(whole)["scaler"]["scale"] > 0
    elif amp:
        assert "enable_amp: no CUDA here" in (whole / "train.log").read_text()


def test_dos_is_reproducible_and_resumable(tmp_path):
    for number in range(5):
        write_scene(tmp_path / "data/train" / f"{number}", points=900, seed=number)
    options = (
        f"data.train.data_root={tmp_path / 'data'}",
        "epoch=4",
        "eval_epoch=4",
        "batch_size=2",
        "hooks.7.save_freq=2",
        "model.num_prototypes=16",
        "scheduler.pct_start=0.25",
    )
    whole = train(DEMO, tmp_path / "whole", *options)
    again = train(DEMO, tmp_path / "again", *options)
    weight = f"weight={whole / 'model/epoch_2.pth'}"
    rest = train(DEMO, tmp_path / "rest", "resume=True", weight, *options)
    assert len(losses(whole)) == 8
    assert losses(again) == losses(whole) and losses(rest) == losses(whole)[4:]
    assert_same(checkpoint(again), checkpoint(whole))
    assert_same(checkpoint(rest), checkpoint(whole))


def run_command(config: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "dos_plugin.minihost", "--config-file", str(config), *arguments],
        env=dict(os.environ, PYTHONPATH=str(TESTS), OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_command_with_two_processes(config, tmp_path):
    run = tmp_path / "two"
    done = run_command(config, "--num-gpus", "2", "--options", f"save_path={run}", "num_worker=0",
                       "hooks.6.type=ModelHook", "gradient_accumulation_steps=1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [step.split("]")[0] for step in losses(run)] == ["[1/2"] * 4 + ["[2/2"] * 4
    saved = checkpoint(run)
    assert saved["epoch"] == 2 and saved["scheduler"]["last_epoch"] == 8
    assert all(key.startswith("module.") for key in saved["state_dict"])


def test_command_fails_with_a_short_message(config, tmp_path):
    done = run_command(config, "--options", "data.train.data_root=nowhere")
    assert done.returncode == 1
    assert "data_root: there is no folder 'nowhere'" in done.stderr
    assert "Traceback" not in done.stderr


def test_amp_and_accumulation_reach_the_optimizer(config, finished):
    assert checkpoint(finished)["scheduler"]["last_epoch"] == 4
    state = checkpoint(finished)["optimizer"]["state"]
    assert {float(entry["step"]) for entry in state.values()} == {4.0}


def snapshot(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


BAD = {
    "no such option": (["hooks.9.type=A"], "option hooks.9.type='A'"),
    "data root": (["data.train.data_root=nowhere"], "data_root: there is no folder 'nowhere'"),
    "split": (["data.train.split=test"], "split: there is no file or folder"),
    "model": (["model.type=Toy-v2"], "Toy-v2 is not in the models registry"),
    "argument": (["model.size=3"], "unexpected keyword argument 'size'"),
    "hook": (["hooks.0.type=Loader"], "Loader is not in the hooks registry"),
    "epochs": (["epoch=3"], r"epoch (3) must be a multiple of eval_epoch (2)"),
    "no step": (["gradient_accumulation_steps=50"], "there is no optimizer step"),
    "rates": (["scheduler.max_lr=1,2,3"], "max_lr has 3 values"),
    "weight": (["weight=gone.pth"], "weight: there is no checkpoint file 'gone.pth'"),
    "resume": (["resume=True"], "resume=True needs the run's checkpoint"),
    "other model": (["resume=True", "weight={run}/model/model_last.pth", "model.channels=9"],
                    "does not fit the model (another backbone?): wrong shape: 3"),
    "other length": (["resume=True", "weight={run}/model/epoch_1.pth", "batch_size=1"],
                     "its run has 4 optimizer steps, this one 8"),
}  # fmt: skip


@pytest.mark.parametrize("options, message", BAD.values(), ids=BAD)
def test_what_cannot_start_leaves_the_run_alone(capsys, config, finished, options, message):
    before = snapshot(finished)
    shown = fail(capsys, config, finished, *[option.format(run=finished) for option in options])
    assert message in shown and "Traceback" not in shown
    after = snapshot(finished)
    for name, content in before.items():
        grown = after[name].startswith(content) if name == "train.log" else False
        assert grown or after[name] == content, name


def test_an_error_in_the_loop_keeps_the_last_checkpoint(capsys, tmp_path):
    config = write_training(tmp_path)
    run = train(config, tmp_path / "run")
    spoiled = np.load(tmp_path / "data/train/scene2/coord.npy")
    spoiled[3, 1] = np.nan
    np.save(tmp_path / "data/train/scene2/coord.npy", spoiled)
    before = (run / "model/model_last.pth").read_bytes()
    weight = f"weight={run / 'model/epoch_1.pth'}"
    shown = fail(capsys, config, run, "resume=True", weight, "num_worker=1")
    assert "GridSample: coord of sample 'scene2' has NaN or infinite values" in shown
    assert "Traceback" not in shown
    log = (run / "train.log").read_text()
    assert "Traceback" in log and "scene2" in log
    assert (run / "model/model_last.pth").read_bytes() == before


def test_a_failed_write_keeps_the_last_checkpoint(capsys, monkeypatch, config, finished, tmp_path):
    run = train(config, tmp_path / "run")
    before = snapshot(run)["model/model_last.pth"]

    def full(content, path):
        Path(path).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    shown = fail(capsys, config, run, "seed=9")
    assert "No space left" in shown
    assert snapshot(run)["model/model_last.pth"] == before
    assert not list(run.glob("model/partial*"))


def test_an_unwritable_config_is_named_and_writes_nothing(capsys, config, tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text(config.read_text() + "\nmodel['channels'] = float('inf')\n")
    shown = fail(capsys, bad, tmp_path / "run")
    assert "config.py because of model" in shown
    assert not (tmp_path / "run").exists()


def test_interrupt(monkeypatch, config, tmp_path):
    steps = []

    def interrupted(trainer):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run_step", interrupted)
    with pytest.raises(SystemExit) as stopped:
        options = [f"hooks.{number}.type=ModelHook" for number in (4, 6)]  # nothing to report
        train(config, tmp_path / "run", *options)
    assert stopped.value.code == 130
    assert "interrupted" in (tmp_path / "run/train.log").read_text()


def test_progress_bar_and_log_lines_do_not_mix(monkeypatch, config, tmp_path):
    pytest.importorskip("tqdm")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    run = train(config, tmp_path / "run")
    shown = terminal.getvalue()
    assert "8/8" in shown and "loss=" in shown
    assert "Train: [" not in shown and "Train: [2/2][4/4]" in (run / "train.log").read_text()
    saved = [line for line in shown.splitlines() if "Saving checkpoint" in line]
    assert len(saved) == 2 and all(line.lstrip("\r ").startswith("[") for line in saved)


def test_nothing_stays_open_after_a_run(finished):
    handlers = logging.getLogger("dos_plugin.minihost").handlers
    assert not any(isinstance(handler, logging.FileHandler) for handler in handlers)
