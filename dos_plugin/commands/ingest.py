"""``dos-plugin ingest``: own scans, with or without labels, into the host's layout."""

import argparse
import sys
from pathlib import Path

from dos_plugin.ingest.labels import LabelFiles, read_label_map
from dos_plugin.ingest.sources import FORMATS, find_files
from dos_plugin.ingest.write import Outcome, Settings, ingest

LISTED = 5  # scans with dropped points; in organised clouds all have some


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin ingest``."""
    add = parser.add_argument
    add("source", nargs="+", metavar="SOURCE", help="scan files, folders or patterns")
    add("--out", required=True, metavar="ROOT", help="data root to write to")
    add("--split", default="train", help="folder below ROOT")
    add("--format", choices=FORMATS, help="of all files (default: by suffix)")
    add(
        "--strength-field",
        metavar="NAME",
        help="field with the strengths, or the number of its column in a plain .npy (from 0); "
        "'none' for no strength (default: looked for)",
    )
    add(
        "--strength-scale",
        type=float,
        metavar="S",
        help="divide strengths by S (default: 1 where all are at most 1, else 255, else 65535)",
    )
    add(
        "--labels",
        metavar="PLACE",
        help="label files (.label, .npy, lidarseg .bin): a folder, or a pattern such as "
        "'{dir}/../labels/{stem}.label'",
    )
    add("--label-field", metavar="NAME", help="field with the labels in the scan files")
    add(
        "--label-map",
        metavar="FILE",
        help="JSON or YAML: label -> training id or 'ignore'",
    )
    add("--workers", type=int, metavar="N", help="processes (default: as the files need)")
    add("--overwrite", action="store_true", help="replace scenes that hold another scan")


def main(args: argparse.Namespace) -> int:
    """Ingest and report; exit status 0, or 2 if anything was left out."""
    outcome = _ingest(args)
    _tell(outcome, args)
    if outcome.skipped:
        print(f"dos-plugin ingest: {len(outcome.skipped)} files skipped:", file=sys.stderr)
        for file, why in outcome.skipped.items():
            print(f"  {file}: {why}", file=sys.stderr)
    return 2 if outcome.skipped else 0


def _ingest(args: argparse.Namespace) -> Outcome:
    if args.labels is not None and args.label_field is not None:
        raise ValueError("--labels and --label-field: give one of them")
    if args.label_map is not None and args.labels is None and args.label_field is None:
        raise ValueError("--label-map: needs --labels or --label-field")
    settings = Settings(
        out=Path(args.out),
        split=args.split,
        format=args.format,
        strength_field=args.strength_field,
        strength_scale=args.strength_scale,
        label_field=args.label_field,
        label_map=None if args.label_map is None else read_label_map(args.label_map),
        overwrite=args.overwrite,
    )
    labels = None if args.labels is None else LabelFiles(args.labels)
    files, missing = find_files(args.source)
    if labels is not None:
        scans = [file for file in files if not labels.holds(file)]
        if files and not scans:
            raise ValueError(
                f"--labels: all scans lie in {args.labels}; use a pattern such as "
                "'{dir}/../labels/{stem}.label'"
            )
        files = scans
    outcome = ingest(files, settings, labels, args.workers)
    outcome.skipped = missing | outcome.skipped
    return outcome


def _tell(outcome: Outcome, args: argparse.Namespace) -> None:
    for used, count in outcome.used.items():
        print(f"{count} scans: {used}")
    if outcome.scale != 1 and args.strength_scale is None:
        print(f"strengths above 1 found: all divided by {outcome.scale:g} (see --strength-scale)")
    if outcome.used and not outcome.strength:
        print("without strengths, the features of a config must do without them, too")
    if not outcome.color and any("colour" in used for used in outcome.used):
        print("colours are left out, because some scans have none")
    for file, number in list(outcome.dropped.items())[:LISTED]:
        print(f"{file}: {number:,} points with NaN or infinite values dropped")
    if len(outcome.dropped) > LISTED:
        total = sum(outcome.dropped.values())
        print(f"and so on: {total:,} points dropped in {len(outcome.dropped):,} scans")
    print(
        f"{len(outcome.written)} scans with {outcome.points:,} points written to "
        f"{Path(args.out) / args.split}"
        + (f", {len(outcome.kept)} were there already" if outcome.kept else "")
    )
    if outcome.classes:
        total = sum(outcome.classes.values())
        print("points by training id (-1 is ignored):")
        for label, number in sorted(outcome.classes.items()):
            print(f"  {label:4} {number:12,} {number / total:7.2%}")
    if outcome.written or outcome.kept:
        split = "" if args.split == "train" else f" data.train.split={args.split}"
        print(f"pretrain on it with: --options data.train.data_root={args.out}{split}")
