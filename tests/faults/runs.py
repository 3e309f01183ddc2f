"""Toy trainings in processes of their own, which can be killed, and what they leave."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dos_plugin.cpu.checkout import find_pointcept

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

    def start(self, *options: str, num_gpus: int = 1, resume: bool = False) -> subprocess.Popen:
        """Start the host's training; its output goes to a pipe."""
        words = ["--config-file", str(self.config), "--num-gpus", str(num_gpus), "--options"]
        words += ["epoch=3", "eval_epoch=3", "gradient_accumulation_steps=1", *self.options]
        if resume and self.last.is_file():
            words += ["resume=True", f"weight={self.last}"]
        words += [f"save_path={self.path}", *options]
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
            start_new_session=True,  # a watchdog ends all of it
        )

    def finish(self, process: subprocess.Popen, status: int = 0, timeout: float = 120) -> str:
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
