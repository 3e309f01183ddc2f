"""``dos-plugin ingest``: own scans, with or without labels, into the host's layout."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from dos_plugin.ingest.flat import DTYPES
from dos_plugin.ingest.labels import LabelFiles, read_label_map
from dos_plugin.ingest.readers import FORMATS, Reading
from dos_plugin.ingest.scan import NEGATIVE, tell_long
from dos_plugin.ingest.sources import find_files
from dos_plugin.ingest.write import Outcome, Settings, ingest
from dos_plugin.messages import some

SCENE = ("coord.npy", "strength.npy", "color.npy", "segment.npy")
LISTED = 5  # scans with dropped points; in organised clouds all have some
EXAMPLES = """examples:
  dos-plugin ingest drive/ --out data/mine
  dos-plugin ingest drive.bag --topic /lidar/points --every 5 --out data/mine
  dos-plugin ingest town.laz --tile 80 --overlap 10 --out data/town
  dos-plugin ingest waymo/ --columns x,y,z,intensity,elongation,time --strength-scale 1 \\
      --out data/waymo
  dos-plugin ingest sequences --labels '{dir}/../labels/{stem}.label' \\
      --label-map semantic-kitti.yaml --out data/kitti
docs/own-data.md has a command for each of ten sensors."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin ingest``."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="scan files, maps, recordings, folders of them or patterns: "
        + ", ".join(suffix for form in FORMATS.values() for suffix in form.suffixes),
    )
    add("--out", required=True, metavar="ROOT", help="data root to write to")
    add("--split", default="train", help="folder below ROOT")
    add("--format", choices=FORMATS, help="of all files (default: by suffix)")
    add_plain_numbers(parser)
    add("--topic", help="topic of the scans in recordings (default: the only one)")
    add("--every", type=int, default=1, metavar="N", help="take every N-th scan of recordings")
    add("--tile", type=float, metavar="M", help="cut maps into squares of M metres")
    add("--overlap", type=float, default=0.0, metavar="M", help="of these squares, metres")
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
        help="divide strengths by S, those above it are 1 (default: 1, 255 or 65535, the least "
        "that 99 %% of all strengths do not exceed)",
    )
    add(
        "--negative-strength",
        choices=NEGATIVE,
        default=NEGATIVE[0],
        help="set strengths below 0, such as -1 for none, to 0, or drop their points",
    )
    add("--max-range", type=float, metavar="M", help="drop points farther away than M metres")
    add("--keep-zeros", action="store_true", help="keep points at (0, 0, 0), missing returns")
    add(
        "--labels",
        metavar="PLACE",
        help="label files (.label, .npy, lidarseg .bin, panoptic .npz): a folder, or a pattern "
        "such as '{dir}/../labels/{stem}.label'",
    )
    add("--label-field", metavar="NAME", help="field with the labels in the scan files")
    add(
        "--label-map",
        metavar="FILE",
        help="JSON or YAML: label -> training id or 'ignore', or semantic-kitti.yaml",
    )
    add("--workers", type=int, metavar="N", help="processes (default: as the files need)")
    add("--overwrite", action="store_true", help="replace scenes that hold another scan")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    kept = [name for name in names if name != "_"]
    missing = [axis for axis in "xyz" if axis not in kept]
    if missing or len(set(kept)) < len(kept) or "" in kept:
        raise argparse.ArgumentTypeError(
            f"{text!r}, expected names such as x,y,z,intensity, x, y and z among them, each once"
        )
    return names


def add_plain_numbers(parser: argparse.ArgumentParser) -> None:
    """Options that say what is in files of plain numbers."""
    parser.add_argument(
        "--columns",
        type=_names,
        metavar="NAMES",
        help="names of the columns of plain numbers (.bin, .npy, .npz) with commas between, _ for "
        "one to leave out (default of a .bin: 3 to 5 columns are told apart)",
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of the numbers in a .bin (default: told apart)"
    )


def main(args: argparse.Namespace) -> int:
    """Ingest and report; exit status 0, or 2 if anything was left out."""
    outcome = _ingest(args)
    _tell(outcome, args)
    if outcome.skipped:
        print(f"dos-plugin ingest: {len(outcome.skipped)} files skipped:", file=sys.stderr)
        for where, why in outcome.skipped.items():
            print(f"  {where}: {why}", file=sys.stderr)
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
        reading=Reading(args.columns, args.dtype, args.topic, args.every),
        strength_field=args.strength_field,
        strength_scale=args.strength_scale,
        label_field=args.label_field,
        label_map=None if args.label_map is None else read_label_map(args.label_map, print),
        overwrite=args.overwrite,
        keep_zeros=args.keep_zeros,
        negative=args.negative_strength,
        max_range=args.max_range,
        tile=args.tile,
        overlap=args.overlap,
    )
    labels = None if args.labels is None else LabelFiles(args.labels)
    others: Counter[str] = Counter()
    files, missing = find_files(args.source, others)
    files = [file for file in files if not _is_of_scene(file, settings.out)]
    if labels is not None:
        scans = [file for file in files if not labels.holds(file)]
        if files and not scans:
            raise ValueError(
                f"--labels: all scans lie in {args.labels}; use a pattern such as "
                "'{dir}/../labels/{stem}.label'"
            )
        files = scans
    if others:
        counted = some([f"{count:,} {suffix}" for suffix, count in others.most_common()])
        print(f"files that are no scans: {counted}")
    outcome = ingest(files, settings, labels, args.workers)
    outcome.skipped = {str(path): why for path, why in missing.items()} | outcome.skipped
    return outcome


def _is_of_scene(file: Path, out: Path) -> bool:
    """Whether a file is what ingest wrote before, below its source."""
    return file.name in SCENE and out.resolve() in file.resolve().parents[2:3]


def _tell(outcome: Outcome, args: argparse.Namespace) -> None:
    for used, count in outcome.used.items():
        print(f"{count} scans: {used}")
    if outcome.scale != 1 and args.strength_scale is None:
        print(
            f"strengths above 1 found: all divided by {outcome.scale:g} (99 % of those of any scan "
            f"are at most {outcome.high:g}; see --strength-scale)"
        )
    if outcome.used and not outcome.strength:
        print("without strengths, the features of a config must do without them, too")
    if not outcome.color and any("colour" in used for used in outcome.used):
        print("colours are left out, because some scans have none")
    _tell_points(outcome, args)
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


def _tell_points(outcome: Outcome, args: argparse.Namespace) -> None:
    """Points that were left out or changed."""
    for where, number in list(outcome.dropped.items())[:LISTED]:
        print(f"{where}: {number:,} points with NaN or infinite values dropped")
    if len(outcome.dropped) > LISTED:
        total = sum(outcome.dropped.values())
        print(f"and so on: {total:,} points dropped in {len(outcome.dropped):,} scans")
    gone = "dropped" if args.negative_strength == "drop" else "set to 0"
    for what, text in {
        "zeros": "points at (0, 0, 0) dropped, missing returns (see --keep-zeros)",
        "far": f"points beyond {args.max_range:g} m dropped" if args.max_range else "",
        "negative": f"points with a strength below 0, {gone} (see --negative-strength)",
        "above": f"points with a strength above {outcome.scale:g}, set to 1 (see --strength-scale)",
    }.items():
        if number := outcome.counts[what]:
            share = number / outcome.counts["read"]
            print(f"{number:,} ({share:.2%}) {text}, in {outcome.scans[what]:,} scans")
    for where, extent in list(outcome.long.items())[:LISTED]:
        print(f"{where}: {tell_long(extent)}")
    if len(outcome.long) > LISTED:
        print(f"and so on: {len(outcome.long):,} scans are so long")
