"""What a DOS checkpoint is worth for detection with few labels: boxes of the synthetic streets.

The demo's detector (objdet-dos-v1m1-9a-demo.py) is trained from the checkpoint and from random
weights on a fraction of the labelled scans, by the train script of the embedded host, as users run
it: the same steps on the same scans for both; a seed chooses the scans, too. Two controls show that
the figure measures what it should: a detector before its first step, and one that learned from the
boxes of other scans. Runs that have left a log are not repeated.
"""

import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import common
from dos_plugin.commands.split import write_split

CONFIG = common.ROOT / "configs/dos/objdet-dos-v1m1-9a-demo.py"
RESULT = re.compile(r"Val result: mAP/NDS (\d+\.\d+)/(\d+\.\d+)")
# Weights, labels and rate of a side.
# Where the config has the detector's range.
RANGES = ("model.grid", "data.train.transform.3", "data.train.transform.4", "data.val.transform.0")
CLASSES = ("car", "truck", "bicycle", "pedestrian", "cone")
SIDES = {
    "DOS": (True, "own", None),
    "random": (False, "own", None),
    "shuffled labels": (True, "shuffled", None),
    "untrained": (True, "own", 0.0),
}


class Run(NamedTuple):
    """One training."""

    side: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.side}-{self.seed}".replace(" ", "-")


def shuffle_boxes(scans: Path, seed: int) -> Path:
    """A data root whose training scans have the boxes of other scans, made of links."""
    root = scans.with_name(f"{scans.name}-shuffled-{seed}")
    folders = sorted(path for path in (scans / "train").iterdir() if path.is_dir())
    step = 1 + seed % max(1, len(folders) - 1)  # no scan keeps its own
    for number, folder in enumerate(folders):
        other = folders[(number + step) % len(folders)]
        target = root / "train" / folder.name
        target.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*.npy"):
            source = other / file.name if file.stem == "boxes" else file
            # instance.npy would count the points of the wrong boxes
            if file.stem != "instance" and not (target / file.name).exists():
                (target / file.name).symlink_to(source.resolve())
    return root


def range_options(reach: float) -> list[str]:
    """Options of the config for scans within so many metres, in learning and scoring."""
    corners = f"[-{reach},-{reach},-4.8,{reach},{reach},8.0]"
    options = [f"{place}.point_cloud_range={corners}" for place in RANGES]
    return options + [f"hooks.4.ranges.{name}={reach}" for name in CLASSES]


def finished(name: str, out: Path, options: list[str]) -> tuple[float, float]:
    """Train the demo's detector with options, if that has not happened yet; mAP and NDS, percent.

    The boxes' scores are those of the last epoch; ``eval_epoch=1`` leaves one evaluation.
    """
    log = out / f"{name}.log"
    if not log.exists():
        log.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "dos_plugin.minihost", "--config-file", str(CONFIG)]
        words += ["--options", f"save_path={(out / name).resolve()}", "eval_epoch=1", *options]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "DOS_HOST": "minihost"}
        environment |= {"PYTHONPATH": str(common.ROOT)}
        partial = log.with_suffix(".partial")
        with partial.open("w") as file:
            done = subprocess.run(words, env=environment, stdout=file, stderr=file)
        if done.returncode or not RESULT.search(partial.read_text()):
            sys.exit(f"{name} failed, see {partial}")
        partial.rename(log)
    found = RESULT.findall(log.read_text())[-1]
    scores = 100 * float(found[0]), 100 * float(found[1])
    print(f"{name}: mAP {scores[0]:.2f}, NDS {scores[1]:.2f}", flush=True)
    return scores


def train(run: Run, args, scans: Path) -> tuple[float, float]:
    """One training; mAP and NDS in percent."""
    weight, labels, rate = SIDES[run.side]
    root = scans if labels == "own" else shuffle_boxes(scans, run.seed)
    options = [
        f"weight={args.weight.resolve() if weight else None}",
        f"data.train.data_root={root.resolve()}",
        f"data.val.data_root={args.data.resolve()}",
        f"seed={run.seed}",
        f"batch_size={args.batch_size}",
        f"epoch={args.epoch if rate is None else 2}",
        *range_options(args.range),
        *args.options,
    ]
    if rate is not None:
        options += [f"optimizer.lr={rate}", "optimizer.weight_decay=0.0", f"base_lr={rate}"]
        options += [f"param_dicts.0.lr={rate}", f"scheduler.max_lr={rate},{rate}"]
    return finished(run.name, args.out, options)


def main() -> None:
    """Run, print, write."""
    options = common.parser(__doc__)
    options.add_argument("--weight", type=Path, default=Path("exp/dos/demo/model/model_last.pth"))
    options.add_argument("--data", type=Path, default=Path("data/dos-demo"))
    options.add_argument("--out", type=Path, default=Path("exp/detection"))
    options.add_argument("--fraction", type=float, default=0.1, help="of the training scans")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    options.add_argument("--batch-size", type=int, default=4)
    options.add_argument("--epoch", type=int, default=60, help="passes over the labelled scans")
    options.add_argument("--range", type=float, default=32.0, help="metres to each side")
    options.add_argument("--options", nargs="*", default=[], help="more options of the config")
    args = options.parse_args()
    scores: dict[str, list[tuple[float, float]]] = {side: [] for side in args.sides}
    for seed in args.seeds:
        scans = write_split(args.data, args.fraction, seed).out
        for side in args.sides:
            scores[side].append(train(Run(side, seed), args, scans))
    rows, summary = [], {}
    for side, values in scores.items():
        row: dict[str, object] = {"weights": side}
        for place, figure in enumerate(("mAP", "NDS")):
            column = [value[place] for value in values]
            row[figure] = statistics.mean(column)
            row[f"{figure}_std"] = statistics.stdev(column) if len(column) > 1 else 0.0
        row["mAP_seeds"] = " ".join(f"{value[0]:.1f}" for value in values)
        rows.append(row)
        summary[f"mAP {side}"] = row["mAP"]
    if {"DOS", "random"} <= scores.keys():
        pairs = zip(scores["DOS"], scores["random"])
        summary["gains in mAP"] = [a[0] - b[0] for a, b in pairs]
    common.print_table(rows)
    common.write_json(args.json, rows, summary)


if __name__ == "__main__":
    main()
