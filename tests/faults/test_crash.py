"""Runs that are killed, stopped or find their checkpoint damaged go on as if nothing had been."""

import json
import os
import random
import signal
import time
import zipfile
from pathlib import Path

import pytest
import torch
from runs import HOSTS, Run

SAVE_STEPS = 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The lines of a run that nothing interrupts, by host and options."""
    known: dict[tuple, dict] = {}

    def lines(host: str = "minihost", *options: str) -> dict:
        key = (host, *options)
        if key not in known:
            run = Run(tmp_path_factory.mktemp("whole"), host, options=options)
            run.train()
            known[key] = run.by_place()
        return known[key]

    return lines


def wait_for(run: Run, process, lines: int) -> None:
    """Until the run has written so many lines, or has ended."""
    while len(run.lines()) < lines and process.poll() is None:
        time.sleep(0.01)


def test_killed_at_random_moments(tmp_path, whole, times, survived):
    """SIGKILL, also while a checkpoint is written: the file is large, so that takes most time."""
    options = ("model.ballast=4000000",)
    expected = whole("minihost", *options)
    kills, lost, rng = times(30), 0, random.Random(0)
    run, number = Run(tmp_path, pause=0.02, options=options), 0
    for _ in range(kills):
        before = run.lines()
        process = run.start(resume=True)
        wait_for(run, process, len(before) + 1)
        time.sleep(rng.uniform(0, 0.4))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        new = [tuple(line["place"]) for line in run.lines()[len(before) :]]
        done = [tuple(line["place"]) for line in before]
        lost = max(lost, len(set(new) & set(done)))
        if len(run.by_place()) == len(expected):  # trained to its end: once more
            assert run.by_place() == expected
            run, number = Run(tmp_path / str(number), pause=0.02, options=options), number + 1
    run.train(resume=True)
    assert run.by_place() == expected
    assert lost <= SAVE_STEPS
    survived("killed (SIGKILL) at a random moment", kills, lost)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_signals_end_the_step_and_leave_with_a_status(tmp_path, whole, survived, host, name):
    run = Run(tmp_path, host, save_steps=100, pause=0.2)
    process = run.start()
    wait_for(run, process, 6)
    os.killpg(process.pid, signal.Signals[name])  # workers, too, as a batch system does
    output = run.finish(process, status=75)
    assert f"{name}: stopped in epoch 2" in output
    note = json.loads((run.path / "preempted.json").read_text())
    assert note["weight"] == str(run.last) and note["signal"] == name
    run.train(resume=True)
    assert not (run.path / "preempted.json").exists()
    assert run.by_place() == whole(host)
    assert len(run.lines()) == len(whole(host))  # no batch was done twice
    survived(f"{name}, {host}")


@pytest.mark.parametrize("damage", ["cut short", "a flipped bit", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(tmp_path, whole, survived, damage):
    run = Run(tmp_path, pause=0.1)
    process = run.start()
    wait_for(run, process, 7)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    content = bytearray(run.last.read_bytes())
    if damage == "a flipped bit":
        with zipfile.ZipFile(run.last) as archive:  # within a tensor: between them nothing counts
            largest = max(archive.infolist(), key=lambda entry: entry.file_size)
            content[content.index(archive.read(largest)) + 8] ^= 1
    run.last.write_bytes(content[: {"cut short": 3000, "empty": 0}.get(damage, len(content))])
    output = run.train(resume=True)
    assert f"{run.last}: " in output and "going on from" in output
    assert run.by_place() == whole()
    done_twice = len(run.lines()) - len(whole())
    assert done_twice <= 2 * SAVE_STEPS
    survived(f"newest checkpoint {damage}", 1, done_twice)


def test_both_checkpoints_damaged_is_an_error(tmp_path):
    run = Run(tmp_path)
    run.train()
    for name in ("model_last.pth", "model_previous.pth"):
        (run.last.parent / name).write_bytes(b"nonsense")
    output = run.train(resume=True, status=1)
    assert "model_previous.pth: truncated or not a torch file" in output


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("steps", [3, 5, 8])
def test_gradients_that_wait_for_their_step_are_kept(tmp_path, whole, survived, host, steps):
    """4 batches an epoch: 3 and 5 do not divide it, 8 is longer than it; every batch is tried."""
    options = (f"gradient_accumulation_steps={steps}",)
    expected = whole(host, *options)
    assert len(expected) == 12
    run = Run(tmp_path, host, save_steps=100, pause=0.1, options=options)
    stops = 0
    for seen in (2, 4, 7) if host == "minihost" else (4,):
        process = run.start(resume=True)
        wait_for(run, process, seen)
        os.kill(process.pid, signal.SIGTERM)
        process.communicate()
        stops += process.returncode == 75
    run.train(resume=True)
    assert run.by_place() == expected and len(run.lines()) == 12
    scheduler = torch.load(run.last, weights_only=True)["scheduler"]
    assert scheduler["last_epoch"] == scheduler["total_steps"] == 12 // steps
    survived(f"stopped between the batches of a step, {host}", stops)


def test_the_end_of_an_epoch_keeps_gradients_too(tmp_path, whole):
    """Killed behind the saver of epoch 1, with one batch of three accumulated."""
    options = ("gradient_accumulation_steps=3",)
    run = Run(tmp_path, save_steps=100, pause=0.3, options=options)
    process = run.start()
    wait_for(run, process, 5)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    position = torch.load(run.last, weights_only=True)["position"]
    assert position["batch"] == 0 and position["accumulated"] == 1
    output = run.train(resume=True)
    assert run.by_place() == whole("minihost", *options)
    assert "give no optimizer step" not in output  # 12 batches are four steps


def test_batches_at_the_end_without_a_step_are_told(tmp_path):
    output = Run(tmp_path).train("gradient_accumulation_steps=5")
    assert "the last 2 batches of the run give no optimizer step" in output


@pytest.mark.parametrize("before, after", [(2, 1), (1, 2)])
def test_another_number_of_processes(tmp_path, whole, survived, before, after):
    """9 scenes, batches of 4: the same batches and rates; dropout is each process's own."""
    options = ("batch_size=4",)
    expected = whole("minihost", *options)
    run = Run(tmp_path, save_steps=1, pause=0.3, options=options)
    process = run.start(num_gpus=before)
    wait_for(run, process, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    run.train(num_gpus=after, resume=True)
    done = merged(run.path)
    assert sorted(done) == sorted(expected)
    for place, line in done.items():
        assert line["names"] == expected[place]["names"], place
        assert (line["lr"], line["decay"]) == (expected[place]["lr"], expected[place]["decay"])
    assert torch.load(run.last, weights_only=True)["scheduler"]["total_steps"] == len(expected)
    survived("another number of processes on resume")


@pytest.mark.parametrize("all_of_them", [True, False])
def test_a_signal_to_several_processes(tmp_path, survived, all_of_them):
    """To the launcher alone, or to every process; the launcher passes the status on."""
    run = Run(tmp_path, save_steps=100, pause=0.3)
    process = run.start(num_gpus=2)
    wait_for(run, process, 3)
    (os.killpg if all_of_them else os.kill)(process.pid, signal.SIGUSR1)
    output = run.finish(process, status=75)
    assert "SIGUSR1: stopped in epoch" in output
    position = torch.load(run.last, weights_only=True)["position"]
    assert position["batch"] == len(run.lines()) % 4  # the last line is of the step that ended
    survived("SIGUSR1, two processes")


def merged(folder: Path) -> dict[tuple, dict]:
    """Lines by place, with the scenes of all ranks."""
    found: dict[tuple, dict] = {}
    for path in sorted(folder.glob("losses*.jsonl")):
        for line in map(json.loads, path.read_text().splitlines()):
            place = tuple(line["place"])
            names = found.get(place, {}).get("names", [])
            found[place] = line | dict(names=sorted({*names, *line["names"]}))
    return found


def test_a_wrong_config_on_resume_inside_an_epoch_is_told(tmp_path):
    run = Run(tmp_path, pause=0.1)
    process = run.start()
    wait_for(run, process, 6)
    os.kill(process.pid, signal.SIGTERM)
    run.finish(process, 75)
    output = run.train("batch_size=1", resume=True, status=1)
    assert "cannot resume inside an epoch" in output and "batch_size=2, this run 1" in output
