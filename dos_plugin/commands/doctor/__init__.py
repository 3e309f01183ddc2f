"""``dos-plugin doctor``: what is there, what is missing, and what mends it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from dos_plugin.commands.doctor.detectors import detector_rows
from dos_plugin.commands.doctor.environment import environment_rows
from dos_plugin.commands.doctor.hosts import Found, find_host, host_rows
from dos_plugin.commands.doctor.inside import MARKER
from dos_plugin.commands.doctor.rows import Row, table
from dos_plugin.commands.doctor.versions import versions

TIMEOUT = 600  # seconds; importing the host takes about ten


EXAMPLES = """examples:
  dos-plugin doctor
  PYTHONPATH=./ dos-plugin doctor --config configs/dos/pretrain-dos-v1m1-0-nuscenes.py \\
      --num-gpus 2
  dos-plugin doctor --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin doctor``."""
    parser.epilog = EXAMPLES
    parser.add_argument("--config", metavar="FILE", help="can this config run here? (path or name)")
    parser.add_argument("--num-gpus", type=int, default=1, help="GPUs it shall run on")
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change the config as at the training (data.train.data_root=FOLDER …)",
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="also write it to a file, with all versions; without FILE print that and no table",
    )


def main(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin doctor``; 1 if something that the config needs is missing."""
    if args.num_gpus < 1:
        raise ValueError(f"--num-gpus must be at least 1, got {args.num_gpus}")
    config = _config_file(args.config) if args.config else None
    if args.options and config is None:
        raise ValueError("--options: change a config, give --config")
    found = find_host()
    rows = [*environment_rows(found.real), *host_rows(found), *detector_rows()]
    no_torch = any(row.item == "torch" and row.status == "missing" for row in rows)
    if not no_torch and not (found.real and found.root is None):
        rows += _look_inside(found, args.num_gpus, config, args.options)
    missing = sum(row.status == "missing" for row in rows)
    if args.json:
        content = {
            "versions": {**versions(), "platform": platform.platform()},
            "config": str(config) if config else None,
            "rows": [row._asdict() for row in rows],
        }
        text = json.dumps(content, indent=1)
        if args.json == "-":
            print(text)
            return 1 if config and missing else 0
        Path(args.json).write_text(text)
    print(table(rows))
    if config is None:
        print("\nAsk about a config with: dos-plugin doctor --config FILE")
        return 0
    verdict = f"cannot run here: {missing} missing" if missing else "can run here"
    print(f"\n{config} {verdict}")
    return 1 if missing else 0


def _config_file(name: str) -> Path:
    """A config by path, else by the name of a shipped one."""
    path = Path(name)
    if path.is_file():
        return path
    from dos_plugin.shipped import config_path

    if path.suffix == ".py" or path.parent != Path("."):
        raise FileNotFoundError(f"--config: there is no file {name!r}")
    return config_path(name)


def _look_inside(
    found: Found, num_gpus: int, config: Path | None, options: Sequence[str] = ()
) -> Iterator[Row]:
    """Rows of a child process that imports the host, with the CPU runner where CUDA is absent."""
    import torch

    devices = torch.cuda.device_count()
    runner = ["-m", "dos_plugin.cpu"] if found.real and not devices else []
    arguments = [str(num_gpus), str(devices), *([str(config)] if config else []), *options]
    paths = [str(found.root)] if found.root and not found.importable else []
    paths += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    variables = {**os.environ, "DOS_HOST": found.name, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        done = subprocess.run(
            [sys.executable, *runner, "-m", "dos_plugin.commands.doctor.inside", *arguments],
            env=variables,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        yield Row("missing", "host import", f"took more than {TIMEOUT} s", "look at what it does")
        return
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARKER)]
    if lines:
        yield from (Row(*row) for row in json.loads(lines[-1][len(MARKER) :]))
        return
    said = (done.stderr.strip() or "no output").splitlines()[-1]
    yield Row(
        "missing",
        "host import",
        f"the process ended with status {done.returncode}: {said}",
        f"{' '.join(['python', *runner])} -c 'import dos_plugin.register' shows all of it",
    )
