"""The demo from end to end, small; and what it keeps, resumes and refuses."""

import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from dos_plugin import cli
from dos_plugin.commands.demo import Plan, State, command_line, make_plan, pretrain
from dos_plugin.runs.memory import PeakMemory
from dos_plugin.runs.scalars import read_events
from tests.viewer_pages import read_page


def demo(folder, *options):
    """Run the quick demo in a folder, as a user would."""
    command = [sys.executable, "-m", "dos_plugin.cli", "demo", "--quick", "--workers", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *options], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    result = demo(folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_demo_leaves_table_report_and_figures(finished):
    folder, text = finished
    report = folder / "exp/dos/demo-quick/report"
    assert text.splitlines()[-1] == "report: exp/dos/demo-quick/report/report.html"
    for line in ("DOS, student", "DOS, teacher", "random weights", "raw inputs"):
        assert re.search(rf"^{line} +\d+\.\d ± \d+\.\d +\d+\.\d +\d+\.\d ± \d+\.\d$", text, re.M)
    content = json.loads((report / "report.json").read_text())
    for source in ("student", "teacher", "random", "raw"):
        assert 0 < content["probe"][source]["miou"] < 100
        assert "car" in content["probe"][source]["iou"]
    phases = content["seconds"]
    assert set(phases) == {"total", "scenes", "pretrain", "probe", "report"}
    parts = sum(value for name, value in phases.items() if name != "total")
    assert phases["total"] == pytest.approx(parts, abs=0.3)
    assert 200 < content["peak_memory_mb"] < 4096
    assert content["training"]["steps"] == 6
    assert content["commands"][1].startswith("python -m dos_plugin.minihost --num-gpus 2 --")
    assert (report / "report.html").stat().st_size > 100_000
    header, _ = read_page(report / "view.html")
    assert [mode["key"] for mode in header["modes"]] == [
        *("label", "strength", "height", "components", "prototype")
    ]
    assert header["modes"][0]["names"][-1] == "clutter"
    for name in ("label-top", "pca-view", "prototype-top", "loss", "usage", "schedules"):
        assert (report / f"{name}.png").is_file()


def test_a_finished_demo_is_not_done_again(finished, monkeypatch, capsys):
    folder, _ = finished
    run = folder / "exp/dos/demo-quick"
    before = (run / "model/model_last.pth").stat().st_mtime_ns
    seconds = json.loads((run / "demo.json").read_text())["pretrain"]["seconds"]
    monkeypatch.chdir(folder)
    assert cli.main(["demo", "--quick", "--workers", "1"]) == 0
    assert capsys.readouterr().out.count("already there") == 2  # pretraining and probe
    assert (run / "model/model_last.pth").stat().st_mtime_ns == before
    content = json.loads((run / "report/report.json").read_text())
    assert content["seconds"]["pretrain"] == pytest.approx(seconds, abs=0.1)


@pytest.fixture
def plan(finished, tmp_path, monkeypatch):
    """The finished demo's scenes and a fresh folder for a run of one or two epochs."""
    folder, _ = finished
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = (
        "epoch=2",
        "eval_epoch=2",
        "data.train.transform.2.max_size=400",
        "hooks.7.save_freq=1",
    )
    return Plan(tmp_path / "run", folder / "data/dos-demo-quick", {}, options)


def state_of(plan):
    state = State(plan.out)
    state.content["scenes"] = {"settings": {"data": "same"}, "seconds": 0.0, "done": True}
    return state


def test_an_interrupted_run_goes_on_and_ends_like_one_that_was_not(plan):
    assert pretrain(plan, state_of(plan)) == 0
    checkpoint = plan.out / "model/model_last.pth"
    whole = torch.load(checkpoint, weights_only=False)
    losses = read_events(plan.out)[0]["train_batch/loss"].value
    assert whole["epoch"] == 2

    # As if Ctrl-C had come in the second epoch: checkpoint of the first one, phase not done.
    (plan.out / "model/epoch_1.pth").replace(checkpoint)
    state = state_of(plan)
    state.content["pretrain"]["done"] = False
    state.write()
    assert pretrain(plan, state_of(plan)) == 0
    resumed = torch.load(checkpoint, weights_only=False)
    assert resumed["epoch"] == 2
    for key, value in whole["state_dict"].items():
        torch.testing.assert_close(resumed["state_dict"][key], value, rtol=0, atol=0, msg=key)
    np.testing.assert_array_equal(read_events(plan.out)[0]["train_batch/loss"].value, losses)
    assert "resume=True" in json.loads((plan.out / "demo.json").read_text())["pretrain"]["command"]


def test_other_settings_start_anew_and_say_so(plan, capsys):
    state = state_of(plan)
    state.begin("pretrain", {"config": "another one"})
    state.add_seconds("pretrain", 1000.0, done=True)
    for name in ("model/model_last.pth", "events.out.tfevents.1.old", "notes.txt"):
        (plan.out / name).parent.mkdir(exist_ok=True)
        (plan.out / name).write_text("old")
    other = Plan(plan.out, plan.data, {}, plan.options, seed=5)
    assert pretrain(other, state_of(other)) == 0
    assert "made with other settings: starting anew" in capsys.readouterr().out
    assert "seed = 5" in (plan.out / "config.py").read_text()
    assert len(list(plan.out.glob("events.out.*"))) == 1
    assert (plan.out / "notes.txt").read_text() == "old"  # not ours, so not touched
    assert state_of(other).seconds("pretrain") < 1000


def test_a_failed_training_is_reported_and_tried_again(plan, capsys):
    broken = Plan(plan.out, plan.data, {}, ("model.num_prototypes=1",))
    assert pretrain(broken, state_of(broken)) != 0
    assert "pretraining failed" in capsys.readouterr().err
    assert not json.loads((plan.out / "demo.json").read_text())["pretrain"]["done"]


def test_a_foreign_run_is_left_alone(tmp_path, capsys):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "config.py").write_text("seed = 1\n")
    options = ["--out", str(tmp_path / "run"), "--data", str(tmp_path / "data")]
    assert cli.main(["demo", "--quick", *options]) == 2
    assert "holds a run that the demo did not make" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.py").read_text() == "seed = 1\n"
    assert not (tmp_path / "data").exists()


def test_a_missing_package_is_named_before_any_work(tmp_path, capsys, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "spconv" else found(name, *a)
    )
    assert cli.main(["demo", "--out", str(tmp_path / "run")]) == 2
    assert "needs the package 'spconv'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_options_of_the_command_reach_the_plan():
    import argparse

    from dos_plugin.commands.demo import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    plan = make_plan(parser.parse_args(["--seed", "7", "--options", "epoch=3", "eval_epoch=3"]))
    assert (str(plan.out), str(plan.data)) == ("exp/dos/demo", "data/dos-demo")
    assert plan.splits == dict(train=160, val=40)
    command = command_line(plan)
    assert command[:2] == ["-m", "dos_plugin.minihost"]
    for option in ("epoch=3", "seed=7", "save_path=exp/dos/demo"):
        assert option in command


def test_peak_memory_counts_children():
    with PeakMemory(interval=0.05) as memory:
        before = memory.mb
        code = "import time; x = bytearray(b'x') * (200 << 20); time.sleep(1.5)"
        child = subprocess.Popen([sys.executable, "-c", code])
        time.sleep(0.3)
        child.wait()
    assert memory.mb > before + 190
