"""Toy trainings in processes of their own, which can be killed, and what they leave."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import dos_plugin.register  # noqa: F401  # here, not in each forked training
from dos_plugin.cpu.checkout import find_pointcept
from dos_plugin.minihost.launch import main

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
from toy_training import write_training  # noqa: E402

HOOKS = """
custom_imports = dict(imports=["dos_plugin.register", "toy_training"], allow_failed_imports=False)
hooks = [
    dict(type="ExactResume", save_steps={save_steps}, grace=20),
    dict(type="CheckpointLoader"),
    dict(type="ModelHook"),
    dict(type="NonFiniteGuard", stop_after=3),
    dict(type="StepWeightDecay"),
    dict(type="InformationWriter"),
    dict(type="CheckpointSaver", save_freq=None),
    dict(type="Losses", pause={pause}),
]
"""

HOSTS = [
    "minihost",
    pytest.param(
        "pointcept",
        marks=pytest.mark.skipif(
            find_pointcept() is None,
            reason="no Pointcept checkout at POINTCEPT_ROOT or ~/.cache/dos-plugin/Pointcept",
        ),
    ),
]


class Forked:
    """A training of the embedded host in a fork, which saves the seconds of all imports.

    Has what is used here of ``subprocess.Popen``.
    """

    def __init__(self, words: list[str], output: Path) -> None:
        self.output, self.returncode = output, None
        self.pid = os.fork()
        if self.pid:
            return
        status = 1
        try:
            os.setsid()
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
            main(words)
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def poll(self) -> int | None:
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def communicate(self, timeout: float = 120) -> tuple[str, None]:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("training", timeout)
            time.sleep(0.01)
        return self.output.read_text(), None


class Run:
    """A toy training: 9 scenes, 4 batches of 2 an epoch, on a host.

    Args:
        folder: to work in.
        host: ``minihost`` or ``pointcept``.
        save_steps: of ``ExactResume``.
        pause: seconds after each batch.
        options: of the training's command line.
    """

    def __init__(
        self,
        folder: Path,
        host: str = "minihost",
        save_steps: int = 2,
        pause: float = 0,
        options: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.host, self.options = host, list(options)
        self.path = folder / "run"
        self.config = folder / "toy.py"
        if not self.config.is_file():
            write_training(folder, scenes=9)
            text = self.config.read_text() + HOOKS.format(save_steps=save_steps, pause=pause)
            self.config.write_text(text)

    @property
    def last(self) -> Path:
        return self.path / "model/model_last.pth"

    def start(
        self, *options: str, num_gpus: int = 1, resume: bool = False
    ) -> subprocess.Popen | Forked:
        """Start the host's training, in a session of its own, so that all of it can be ended."""
        words = ["--config-file", str(self.config), "--num-gpus", str(num_gpus), "--options"]
        words += ["epoch=3", "eval_epoch=3", "gradient_accumulation_steps=1"]
        words += ["scheduler.pct_start=0.3", *self.options]
        if resume and self.last.is_file():
            words += ["resume=True", f"weight={self.last}"]
        words += [f"save_path={self.path}", *options]
        if self.host == "minihost" and num_gpus == 1:
            return Forked(words, self.config.with_name("output.txt"))
        paths = [str(TESTS)]
        command, root = [sys.executable, "-m", "dos_plugin.minihost"], TESTS.parent
        if self.host != "minihost":
            found = find_pointcept()
            assert found is not None
            root = found
            paths.append(str(root))
            command = [sys.executable, "-m", "dos_plugin.cpu", "tools/train.py"]
        env = dict(os.environ, DOS_HOST=self.host, PYTHONPATH=os.pathsep.join(paths))
        return subprocess.Popen(
            [*command, *words],
            cwd=root,
            env=env | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(
        self, process: subprocess.Popen | Forked, status: int = 0, timeout: float = 120
    ) -> str:
        """Wait for the end and check the status; a run that hangs fails the test."""
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            output, _ = process.communicate()
            raise AssertionError(f"hangs after {timeout} s:\n{output}") from None
        assert process.returncode == status, output
        return output

    def train(self, *options: str, status: int = 0, num_gpus: int = 1, resume: bool = False) -> str:
        """Train to the end; the output."""
        return self.finish(self.start(*options, num_gpus=num_gpus, resume=resume), status)

    def lines(self) -> list[dict]:
        """What ``Losses`` wrote, in the order of writing."""
        path = self.path / "losses.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def by_place(self) -> dict[tuple, dict]:
        """The lines by (epoch, batch); a batch done twice must have been the same twice."""
        found: dict[tuple, dict] = {}
        for line in self.lines():
            assert found.setdefault(tuple(line["place"]), line) == line
        return found
