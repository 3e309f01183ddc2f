"""``dos-plugin probe``: a linear and a kNN probe of frozen features, beside what they must beat."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dos_plugin.host import active_host
from dos_plugin.probing.compare import SOURCES, probe_run, progress, raw_inputs, sources_of
from dos_plugin.probing.probe import ProbeSettings
from dos_plugin.probing.scans import ScanSource, class_names, default_splits
from dos_plugin.runs.run import open_run
from dos_plugin.whole_file import write_whole


def format_table(result: dict[str, dict[str, Any]]) -> str:
    """A table for the terminal: a line per source, mean and standard deviation over seeds."""
    lines = [f"{'frozen features':<18}{'linear mIoU':>14}{'accuracy':>10}{'kNN mIoU':>14}"]
    for source, entry in result.items():
        knn = entry.get("knn")
        lines.append(
            f"{SOURCES[source]:<18}{_spread(entry):>14}{entry['accuracy']:>10.1f}"
            f"{_spread(knn) if knn else '-':>14}"
        )
    return "\n".join(lines)


EXAMPLES = """examples:
  dos-plugin probe exp/dos/demo --json probe.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin probe``."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "run",
        metavar="CKPT",
        help="checkpoint, exported file, run's folder, or a config (random weights)",
    )
    parser.add_argument("--config", help="config of the run, if it is not in the run's folder")
    parser.add_argument("--data", help="data root; default: the one the run was trained on")
    parser.add_argument("--train-split", help="to train on; default: train (Waymo: training)")
    parser.add_argument("--val-split", help="to score it on; default: val (Waymo: validation)")
    parser.add_argument("--train-scans", type=int, default=40, help="at most that many scans")
    parser.add_argument("--val-scans", type=int, default=20, help="at most that many scans")
    parser.add_argument("--seeds", type=int, default=3, help="number of probe seeds")
    parser.add_argument("--steps", type=int, default=ProbeSettings.steps, help="linear probe steps")
    parser.add_argument(
        "--balance",
        type=float,
        default=ProbeSettings.balance,
        help="class weights are frequency**-BALANCE: 0 plain, 1 class-balanced cross-entropy",
    )
    parser.add_argument(
        "--sources", nargs="+", choices=tuple(SOURCES), help="default: all there are"
    )
    parser.add_argument("--no-knn", action="store_true", help="leave the kNN probe out")
    parser.add_argument("--json", metavar="FILE", help="also write the results to a file")


def main(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin probe``."""
    import dos_plugin.register  # noqa: F401

    found = open_run(args.run, args.config)
    sources = args.sources or sources_of(found)  # named ones may be of another method's backbone
    if found.checkpoint is None and Path(args.run).is_dir() and not args.sources:
        # A folder stands for its trained model; a config file for random weights.
        raise FileNotFoundError(
            f"{args.run}/model/model_last.pth: no checkpoint there, has the run finished its first "
            "epoch?"
        )
    settings = replace(
        ProbeSettings(), seeds=tuple(range(args.seeds)), steps=args.steps, balance=args.balance
    )
    splits = default_splits(found, args.data)
    train = ScanSource(found, args.data, args.train_split or splits[0], args.train_scans)
    val = ScanSource(found, args.data, args.val_split or splits[1], args.val_scans)
    print(f"{len(train)} scans of {train.place} to train, {len(val)} of {val.place} to score")
    result = probe_run(
        found,
        [scan for scan in progress(train, "reading, train")],
        [scan for scan in progress(val, "reading, val")],
        class_names(found, args.data),
        sources,
        settings,
        knn=not args.no_knn,
        say=print,
    )
    print(f"\n{format_table(result)}\nraw inputs: {', '.join(raw_inputs(train))}")
    if args.json:
        content = {
            "probe": result,
            "settings": asdict(settings),
            "checkpoint": str(found.checkpoint),
            "host": active_host().name,
            "train": {"place": train.place, "scans": len(train)},
            "val": {"place": val.place, "scans": len(val)},
        }
        write_whole(Path(args.json), lambda file: file.write_text(json.dumps(content, indent=1)))
    return 0


def _spread(entry: dict[str, Any]) -> str:
    return f"{entry['miou']:.1f} ± {entry['miou_std']:.1f}"
