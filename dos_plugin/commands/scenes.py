"""``dos-plugin scenes``: synthetic LiDAR streets."""

import argparse
from pathlib import Path

import numpy as np

from dos_plugin.scenes.write import scene_name, write_scenes

EXAMPLES = """examples:
  dos-plugin scenes data/streets --train 40 --val 10 --picture street.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin scenes``."""
    parser.epilog = EXAMPLES
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


def main(args: argparse.Namespace) -> int:
    """Generate, print the share of each class, draw."""
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
        from dos_plugin.drawing.street import draw_scan

        arrays = {n: np.load(folder / f"{n}.npy") for n in ("coord", "segment", "strength")}
        print(draw_scan(path=args.picture, title=str(scan), **arrays))
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
