"""``dos-plugin report``: the report of a run of either host, finished or not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dos_plugin.messages import one_line
from dos_plugin.probing.probe import ProbeSettings
from dos_plugin.probing.scans import Scan, ScanSource, class_names, default_splits, held_out_source
from dos_plugin.reports.evidence import Facts
from dos_plugin.reports.write import probe_into, write_report
from dos_plugin.runs.record import Missing, Record, read_record
from dos_plugin.runs.run import Run

# Scans that are read, evenly spread over the split; a probe is scored on all of them.
SCANS = 20


EXAMPLES = """examples:
  dos-plugin report exp/dos/demo"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin report``."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="folder of a run, or a checkpoint")
    parser.add_argument("--config", help="config of the run, if it is not in the run's folder")
    parser.add_argument("--data", help="data root; default: the one the run was trained on")
    parser.add_argument("--split", help="scans to show; default: val if there is one, else train")
    parser.add_argument("--scan", type=int, help="number of the scan to draw, in the sorted split")
    parser.add_argument("--no-probe", action="store_true", help="leave the probe out")
    parser.add_argument("--seeds", type=int, default=3, help="number of probe seeds")
    parser.add_argument("--out", type=Path, help="folder; default: report/ in the run's folder")


def main(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin report``."""
    import dos_plugin.register  # noqa: F401

    record = read_record(args.run, args.config)
    facts = Facts(commands=[" ".join(["dos-plugin", *sys.argv[1:]])])
    scans: list[Scan] = []
    picture: Scan | None = None
    names: list[str] = []
    if record.run is not None:
        with record.attempt("class names", "classes by name", "Look at data.names."):
            names = class_names(record.run, args.data)
        source = _find_scans(record, record.run, args)
        if source is not None:
            scans = _read_scans(record, source)
            picture = _chosen(record, record.run, args, source.split)
            if not args.no_probe:
                _probe(record, record.run, facts, scans, names, source.split, args)
    path = write_report(record, scans, facts, names, picture, args.out)
    for missing in record.missing:
        if not missing.optional:
            print(f"missing: {missing}", file=sys.stderr)
    if facts.verdict is not None:
        print(f"{facts.verdict.title}: {' '.join(facts.verdict.reasons)}")
    print(f"report: {path}")
    return 0


def _find_scans(record: Record, run: Run, args: argparse.Namespace) -> ScanSource | None:
    """Where the scans to show are; None for a network whose inputs are unknown."""
    shows = "pictures of a scan, prototypes and the probe"
    if record.kind in ("other pretraining", "detection run"):
        what = f"scans for {record.model.get('type')}"
        why = "not tried: how its inputs are made is known for DOS and segmentation runs only"
        record.missing.append(Missing(what, why, shows, "", optional=True))
        return None
    remedy = "Give the root of scans of that kind with --data, and --split where it has others."
    with record.attempt("scans", shows, remedy):
        if args.split:
            return ScanSource(run, args.data, args.split, SCANS)
        source, lack = held_out_source(run, args.data, SCANS)
        if lack is not None:
            what, shows = "scans for validation", "scans that were not trained on, and the probe"
            record.missing.append(Missing(what, one_line(lack), shows, remedy, optional=True))
        return source
    return None


def _read_scans(record: Record, source: ScanSource) -> list[Scan]:
    """As many of the scans as can be read."""
    scans: list[Scan] = []
    broken: dict[str, str] = {}
    for index in range(len(source)):
        try:
            scans.append(source[index])
        except Exception as error:  # a damaged file fails in any way
            broken[str(source.dataset.data_list[index])] = one_line(error)
    for name, why in broken.items():
        record.missing.append(Missing(name, why, "this scan", "Look at its files."))
    if scans and not any(bool((scan.segment >= 0).any()) for scan in scans):
        what, shows = f"labels of the scans in {source.place}", "the true classes and the probe"
        remedy = "Label some scans (docs/own-data.md), or give the root of labelled ones (--data)."
        record.missing.append(Missing(what, "there are none", shows, remedy))
    return scans


def _chosen(record: Record, run: Run, args: argparse.Namespace, split: Any) -> Scan | None:
    """The scan that ``--scan`` names; None without the option, and if it cannot be read."""
    if args.scan is None:
        return None
    source = ScanSource(run, args.data, split)
    if not 0 <= args.scan < len(source):
        raise ValueError(f"--scan {args.scan}: {source.place} has 0 to {len(source) - 1}")
    with record.attempt(f"scan {args.scan}", "this scan", "Look at its files."):
        return source[args.scan]
    return None


def _probe(
    record: Record,
    run: Run,
    facts: Facts,
    scans: Sequence[Scan],
    names: Sequence[str],
    split: Any,
    args: argparse.Namespace,
) -> None:
    """Probe a DOS pretraining, if there is what it takes."""
    labelled = any(bool((scan.segment >= 0).any()) for scan in scans)
    if record.kind != "DOS pretraining" or record.checkpoint is None or not labelled:
        return
    shows = "what the frozen features know, beside random weights"
    remedy = "The root of labelled scans (--data) needs a split to train on and another one."
    with record.attempt("probe", shows, remedy):
        of_training, held_out = default_splits(run, args.data)
        if split == of_training or split != (args.split or held_out):
            raise ValueError(f"there is no split apart from {split!r}")
        print("probing, which takes about a minute (--no-probe leaves it out)")
        train = ScanSource(run, args.data, of_training, 40)
        settings = ProbeSettings(seeds=tuple(range(args.seeds)))
        probe_into(facts, run, train, scans, names, settings, print)
