"""docs/recipes.md: what its commands name is there, and its batch script does what it says."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("spconv", reason="the embedded host needs the extra 'demo'")

from dos_plugin import cli
from dos_plugin.cpu.checkout import find_pointcept
from dos_plugin.host import HOST
from dos_plugin.shipped import config_path
from tests.pages import ROOT, blocks, commands

PAGE = "docs/recipes.md"
CONFIG = re.compile(r"\b(?:pretrain|semseg|objdet)-dos-v1m1-[\w-]+")

pytestmark = pytest.mark.skipif(not (ROOT / PAGE).is_file(), reason="needs the source tree")


class Command(NamedTuple):
    """A command of the page, and the names of configs and runs of the commands before it."""

    words: list[str]
    runs: dict[str, str]  # folder -> name of the config that it was trained with

    def after(self, *flags: str) -> str | None:
        """The word that follows one of some flags."""
        found = [b for a, b in zip(self.words, self.words[1:]) if a in flags]
        return found[0] if found else None

    @property
    def options(self) -> list[str]:
        """What stands behind ``--options``, up to the next flag."""
        if "--options" not in self.words:
            return []
        rest = self.words[self.words.index("--options") + 1 :]
        return rest[: next((i for i, word in enumerate(rest) if word.startswith("--")), None)]

    @property
    def config(self) -> str | None:
        """Name of the config that it reads."""
        named = self.after("--config-file", "--config", "-c") or ""
        return self.runs.get(str(Path(named).parent)) or next(iter(CONFIG.findall(named)), None)

    @property
    def run(self) -> str | None:
        """Folder of the run that it writes."""
        saved = [word.split("=", 1)[1] for word in self.options if word.startswith("save_path=")]
        return saved[0] if saved else f"exp/dos/{name}" if (name := self.after("-n")) else None


def with_variables(text: str) -> str:
    """A script with what it sets itself put in."""
    for name, value in re.findall(r"^([A-Z]+)=(\S+)$", text, re.MULTILINE):
        text = re.sub(rf"\${name}\b", value, text)
    return text


def page_commands() -> Iterator[Command]:
    runs: dict[str, str] = {}
    for language, text in blocks(PAGE):
        assert language == "sh", text
        for _, words in commands(with_variables(text)):
            command = Command(words, dict(runs))
            yield command
            if command.config and command.run and "scripts/test.sh" not in words:
                runs[command.run] = command.config


def read(name: str) -> Any:
    """A shipped config."""
    return HOST.Config.fromfile(str(config_path(name)))


COMMANDS = list(page_commands()) if (ROOT / PAGE).is_file() else []


def test_the_page_is_read():
    """Else the tests below would pass over nothing."""
    programs = [command.words[0] for command in COMMANDS if command.words]
    assert programs.count("sh") > 8 and programs.count("dos-plugin") > 8
    assert sum(len(command.options) for command in COMMANDS) > 20


def test_dos_plugin_takes_its_arguments(capsys):
    for command in COMMANDS:
        if command.words[:1] == ["dos-plugin"]:
            name, *arguments = command.words[1:]
            try:
                cli.command_parser(name).parse_args(arguments)
            except SystemExit:
                pytest.fail(f"{' '.join(command.words)}: {capsys.readouterr().err}")


def test_every_config_is_there():
    names = set(CONFIG.findall((ROOT / PAGE).read_text()))
    assert len(names) > 10
    for name in names:
        assert config_path(name).is_file()


def test_options_are_keys_of_the_config():
    for command in COMMANDS:
        if not command.options:
            continue
        assert command.config, command.words
        config = read(command.config)
        for option in command.options:
            value = config
            for key in option.split("=", 1)[0].split("."):
                there = int(key) < len(value) if isinstance(value, list) else key in value
                assert there, f"{option}: no {key!r} in {command.config}"
                value = value[int(key) if isinstance(value, list) else key]


def test_options_in_the_text_are_keys_of_the_config():
    """Beside the blocks: those of the section on one GPU."""
    for config, place in (
        ("pretrain-dos-v1m1-3-nuscenes-1gpu", "train"),
        ("pretrain-dos-v1m1-3-outdoor-1gpu", "train.datasets.0"),
    ):
        text = (ROOT / PAGE).read_text()
        assert f"data.{place}.transform.2" in text
        data = read(config).data
        for key in place.split("."):
            data = data[int(key) if isinstance(data, list) else key]
        assert "max_size" in data.transform[2]


def test_a_run_that_is_named_was_trained_before():
    for command in COMMANDS:
        for word in command.words:
            for folder in re.findall(r"exp/dos/[\w-]+", word):
                assert folder in (*command.runs, command.run), command.words
        if "scripts/test.sh" in command.words:
            assert command.run in command.runs, command.words


def test_a_checkpoint_goes_with_its_config():
    """A segmentation or detector takes the backbone of the config that its weights come from."""
    pairs = 0
    for command in COMMANDS:
        weights = [word.removeprefix("weight=") for word in command.options if "weight=" in word]
        for weight in [*weights, command.after("-w") or ""]:
            folder = str(Path(weight).parents[1]) if weight.endswith(".pth") else None
            if folder in command.runs and command.config:
                ours, theirs = (
                    read(name).model.backbone for name in (command.config, command.runs[folder])
                )
                for key in ("type", "in_channels", "enc_channels", "enc_depths"):
                    assert ours[key] == theirs[key], (command.words, key)
                pairs += 1
    assert pairs > 4


def test_what_is_named_of_the_host_is_there():
    root = find_pointcept()
    if root is None:
        pytest.skip("no Pointcept checkout at POINTCEPT_ROOT or ~/.cache/dos-plugin/Pointcept")
    launcher = (root / "pointcept/engines/defaults.py").read_text()
    seen = set()
    for command in COMMANDS:
        for position, word in enumerate(command.words):
            if not re.match(r"(scripts|tools|pointcept)/\S+\.(py|sh)$", word):
                continue
            seen.add(word)
            text = (root / word).read_text()
            if word.startswith("tools/"):
                text = launcher
            if word.startswith("scripts/"):
                known = re.search(r'getopts "([a-z:]+)"', text)[1]
                flags = [w for w in command.words[position:] if re.match(r"-\w$", w)]
                assert flags and all(f"{flag[1]}:" in known for flag in flags), command.words
            else:
                flags = [w for w in command.words[position:] if w.startswith("--")]
                assert all(f'"{flag}"' in text for flag in flags), command.words
    assert {"scripts/train.sh", "scripts/test.sh", "tools/train.py"} <= seen


# Slurm's daemon starts a task, which inherits no trap of the batch script; both get the signal.
SRUN = """
import os, signal, sys
for number in (signal.SIGUSR1, signal.SIGTERM):
    os.kill(os.getppid(), number)
    signal.signal(number, signal.SIG_DFL)
words = [word for word in sys.argv[1:] if not word.startswith("--")]
os.execvp(words[0], words)
"""
TRAIN = """
echo "$@" >> trained
kill -USR1 $$ && kill -TERM $$
mkdir -p exp/dos/outdoor-slurm/model
. ./end
"""


def test_the_batch_script_queues_and_resumes(tmp_path):
    """With stand-ins for Slurm and train.sh: stopped, queued again, resumed, failed, ended."""
    (script,) = [text for _, text in blocks(PAGE) if text.startswith("#!")]
    (tmp_path / "dos.sbatch").write_text(script)
    tools = tmp_path / "bin"
    for path, text in {
        tools / "srun": f"#!{sys.executable}{SRUN}",
        tools / "scontrol": '#!/bin/sh\necho "$@" >> queued\n',
        tmp_path / "scripts/train.sh": TRAIN,
    }.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    env = dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}", SLURM_JOB_ID="7")
    env["SLURM_CPUS_PER_TASK"] = "20"

    def job(end: str) -> tuple[int, int, str]:
        """Exit status, how often it was queued by now, and the words that train.sh got last."""
        (tmp_path / "end").write_text(end)
        done = subprocess.run(["bash", "dos.sbatch"], cwd=tmp_path, env=env, timeout=60)
        queued = tmp_path / "queued"
        times = len(queued.read_text().splitlines()) if queued.exists() else 0
        return done.returncode, times, (tmp_path / "trained").read_text().splitlines()[-1]

    run = "exp/dos/outdoor-slurm"
    first = "-g 4 -m 2 -d dos -c pretrain-dos-v1m1-0-outdoor -n outdoor-slurm -r "
    assert job("exit 3") == (3, 0, first + "false")
    stopped = f"touch {run}/model/model_last.pth {run}/preempted.json; exit 1"
    assert job(stopped) == (0, 1, first + "false")
    assert (tmp_path / "queued").read_text() == "requeue 7\n"
    assert job("exit 2") == (2, 1, first + "true")  # the note of before is no reason
    assert job(stopped) == (0, 2, first + "true")
    assert job("exit 0") == (0, 2, first + "true")
