"""A training as a process of its own: its command line, its environment, what is noted of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dos_plugin.whole_file import write_whole


def train_command(
    script: Sequence[str], config: Path, folder: Path, options: Sequence[str]
) -> list[str]:
    """The words that train a config, going on where the folder has a checkpoint.

    Args:
        script: the train script and what stands before and behind it.
        config: config file.
        folder: of the run.
        options: further ``key=value`` for the config.
    """
    words = [*script, "--config-file", str(config), "--options", f"save_path={folder}", *options]
    checkpoint = folder / "model" / "model_last.pth"
    return [*words, "resume=True", f"weight={checkpoint}"] if checkpoint.is_file() else words


def environment(host: str, one_thread: bool = True) -> dict[str, str]:
    """Variables of a training's process: its host, and one thread where processes share cores."""
    one = {"OMP_NUM_THREADS": "1"} if one_thread else {}
    return {**one, **os.environ, "DOS_HOST": host}


def digest(value: Any) -> str:
    """A fingerprint of settings."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()


def read_notes(path: Path) -> dict[str, Any]:
    """What was noted of a run in a JSON file, {} if there is none.

    Raises:
        ValueError: if it is no JSON.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is no JSON ({error}), remove it") from error


def write_notes(path: Path, notes: Mapping[str, Any]) -> None:
    """Write what :func:`read_notes` reads, completely or not at all; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(notes, indent=1) + "\n"
    write_whole(path, lambda file: file.write_text(text))
