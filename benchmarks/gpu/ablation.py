"""Rows 0, 2, 4 and 5 of the ablation with two seeds, as long as the time allows: see run.py.

First a short round; from its time follows how long the next one may be, up to ten times the
config's own length. Each round is a complete table, which stays if the next one is cut short.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the other benchmarks
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the tests

import common
from dos_plugin.shipped import configs_dir
from host_runs import WORK, Sizes, streets

ROWS = (
    "component-0-mask-token",
    "component-2-observable",
    "component-4-softmap",
    "component-5-zipf",
)
MOST = 160  # epochs: ten times those of the configs
SPARE = 0.7  # share of the time left that a round may be planned for


def train(epochs: int, data: Path, dry: bool) -> list[dict]:
    """The table of a round.

    Raises:
        RuntimeError: If a training or a probe fails.
    """
    out = WORK / f"ablation-{epochs}"
    names, seeds = (ROWS[-1:], ["0"]) if dry else (ROWS, ["0", "1"])
    configs = [str(configs_dir() / f"ablation/{name}.py") for name in names]
    options = [f"epoch={epochs}", f"eval_epoch={epochs}", "scheduler.pct_start=0.5"]
    command = [sys.executable, "-m", "dos_plugin.cli", "ablate", *configs, "--out", str(out)]
    command += ["--data", str(data), "--seeds", *seeds, "--jobs", "1" if dry else "8"]
    command += ["--options", *options, "--probe"]
    short = ["--train-scans", "2", "--val-scans", "1", "--steps", "30", "--seeds", "1"]
    command += short if dry else ["--train-scans", "32"]
    done = subprocess.run(
        command, env={**os.environ, "DOS_HOST": "minihost"}, capture_output=True, text=True
    )
    if done.returncode:
        logs = [path.read_text()[-800:] for path in out.rglob("*.out")]
        raise RuntimeError("\n".join([done.stdout[-500:], done.stderr[-1000:], *logs[:2]]))
    return json.loads((out / "ablation.json").read_text())


def main() -> None:
    """Rounds, as many as fit."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--dry", action="store_true", help="one row, one short round")
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    end = time.monotonic() + float(os.environ.get("DOS_GPU_SECONDS", "600"))
    data = streets(Sizes(args.dry))
    epochs, rows = 2 if args.dry else 4, []
    while True:
        start = time.monotonic()
        try:
            rows = train(epochs, data, args.dry)
        except RuntimeError as error:
            sys.exit(str(error))
        taken = time.monotonic() - start
        for row in rows:
            print(f"{epochs} epochs: {row['name']}: {row['miou']:.2f}", flush=True)
        common.write_json(args.json, rows, {"epochs": epochs, "seconds": taken})
        # Starting and probing take part of the time, so this is short of what would fit.
        longer = min(MOST, int(epochs * SPARE * (end - time.monotonic()) / taken))
        if args.dry or longer < 1.5 * epochs:
            return
        epochs = longer


if __name__ == "__main__":
    main()
