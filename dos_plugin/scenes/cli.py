"""Command line of the scene generator, shared by ``python -m`` and ``dos-plugin scenes``."""

import argparse
import sys
from pathlib import Path

import numpy as np

from .write import scene_name, write_scenes

HELP = "write synthetic street scans in the host's on-disk layout"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the generator's arguments to a parser."""
    parser.add_argument("root", metavar="ROOT", help="folder to write to")
    parser.add_argument("--train", type=int, default=160, help="training scans")
    parser.add_argument("--val", type=int, default=40, help="validation scans")
    parser.add_argument("--seed", type=int, default=0, help="seed of all scans")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--picture", metavar="FILE", help="also draw a scan to this PNG file")
    parser.add_argument(
        "--picture-scene",
        metavar="SPLIT/INDEX",
        default=None,
        help="which scan to draw instead of the first one",
    )


def run(args: argparse.Namespace) -> int:
    """Generate, print the share of each class, draw; returns the exit status."""
    try:
        if args.picture_scene and not args.picture:
            raise ValueError("--picture-scene: needs --picture FILE to draw to")
        splits = {"train": args.train, "val": args.val}
        record = write_scenes(args.root, splits, args.seed, args.workers)
        print_table(record)
        if args.picture:
            first = next((split for split, count in splits.items() if count), None)
            if first is None:
                raise ValueError("--picture: there is no scan to draw, ask for at least one")
            scan = _chosen(args.picture_scene or f"{first}/0")
            folder = Path(args.root) / scan
            from .draw import draw_scan

            arrays = {n: np.load(folder / f"{n}.npy") for n in ("coord", "segment", "strength")}
            print(draw_scan(path=args.picture, title=str(scan), **arrays))
    except (ValueError, OSError) as error:
        print(f"dos-plugin scenes: {error}", file=sys.stderr)
        return 2
    return 0


def _chosen(text: str) -> Path:
    split, _, index = text.partition("/")
    if not split or not index.isdigit():
        raise ValueError(f"--picture-scene: {text!r}, expected SPLIT/INDEX, val/3 for example")
    return Path(split) / scene_name(int(index))


def print_table(record: dict) -> None:
    """Print the points of each class of all splits."""
    parts = [part for part in record["splits"].values() if part]
    total = sum(part["points"] for part in parts)
    for split, part in record["splits"].items():
        if part:
            print(f"{split}: {part['scenes']} scans, {part['points']:,} points")
    for name in parts[0]["class_points"] if total else ():
        points = sum(part["class_points"][name] for part in parts)
        print(f"  {name:13s} {points:>10,} {100 * points / total:8.3f} %")
