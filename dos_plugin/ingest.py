"""Bring KITTI-style scans (``.bin``: float32 x y z intensity) into the host's on-disk layout."""

import argparse
import glob
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dos_plugin.scenes.folders import drop_partial, write_folder

HELP = "turn KITTI-style .bin scans into the host's on-disk layout"
ROW = 16  # bytes of a point: four float32
FARTHEST = 10_000.0  # metres; a file of another layout soon shows a larger coordinate


@dataclass
class Outcome:
    """What became of the files.

    Attributes:
        written: scene folders written.
        kept: scene folders that held the same scan already.
        points: points in the folders written.
        dropped: file -> number of its rows with NaN or infinite values, which are left out.
        skipped: file -> why it was left out.
        scale: strengths were divided by this.
    """

    written: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    points: int = 0
    dropped: dict[Path, int] = field(default_factory=dict)
    skipped: dict[Path, str] = field(default_factory=dict)
    scale: float = 1.0


def find_files(inputs: Sequence[str]) -> tuple[list[Path], dict[Path, str]]:
    """Files named by paths, folders (searched for ``*.bin``) and glob patterns, each once.

    Returns:
        the files, and for each input that names nothing, why.
    """
    found: dict[Path, Path] = {}
    missing: dict[Path, str] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            files = sorted(path.rglob("*.bin"))
        elif path.exists():
            files = [path]
        else:
            files = [Path(p) for p in sorted(glob.glob(text, recursive=True)) if Path(p).is_file()]
        if not files:
            missing[path] = "no .bin file in this folder" if path.is_dir() else "no such file"
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values()), missing


def scene_names(files: Sequence[Path]) -> list[str]:
    """A folder name for each file: its stem, with as many parent folders as make all differ."""
    parts = [(*file.resolve().parts[1:-1], file.stem) for file in files]
    depth = 1
    while True:
        names = ["-".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names) or depth >= max(map(len, parts), default=1):
            break
        depth += 1
    names = [re.sub(r"[^\w.-]", "_", name).lstrip(".") for name in names]
    if len(set(names)) < len(names):  # "00.bin" and "00.txt", or names that differ in spaces only
        names = [f"{name}-{number}" for number, name in enumerate(names)]
    return names


def read_bin(file: Path) -> tuple[np.ndarray, int]:
    """Points of a file.

    Returns:
        (N, 4) float32 finite rows x y z (metres) and strength as stored; the number of rows
        dropped because of NaN or infinite values.

    Raises:
        OSError: it cannot be read.
        ValueError: its content cannot be float32 x y z intensity.
    """
    data = file.read_bytes()
    if not data:
        raise ValueError("no point, the file is empty")
    if len(data) % ROW:
        raise ValueError(
            f"{len(data):,} bytes is not a multiple of {ROW} (float32 x y z intensity): "
            "cut off, or of another layout"
        )
    rows = np.frombuffer(data, "<f4").reshape(-1, 4)
    finite = np.isfinite(rows).all(1)
    points = rows[finite]
    if not len(points):
        raise ValueError(f"no point with finite values among {len(rows):,}")
    farthest = np.abs(points[:, :3]).max()
    if farthest > FARTHEST:
        raise ValueError(
            f"a coordinate of {farthest:.3g} m, expected at most {FARTHEST:g}: of another layout?"
        )
    if points[:, 3].min() < 0:
        raise ValueError(
            f"a strength of {points[:, 3].min():.3g}, expected 0 or more: of another layout?"
        )
    return points, int(len(rows) - len(points))


def choose_scale(files: Sequence[Path], progress: bool = True) -> float:
    """Divisor that brings the strengths of all readable files into [0, 1]: 1, 255 or 65535.

    One divisor for all files, because the same surface must give the same strength in each.
    """
    largest = 0.0
    for file in _bar(files, "strengths", progress):
        try:
            largest = max(largest, float(read_bin(file)[0][:, 3].max()))
        except (OSError, ValueError):
            continue  # reported when it is its turn to be written
    return next((scale for scale in (1.0, 255.0, 65535.0) if largest <= scale), largest)


def ingest(
    files: Sequence[Path],
    out: str | os.PathLike,
    split: str = "train",
    strength_scale: float | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Outcome:
    """Write ``out/split/<name>/coord.npy`` (N, 3) and ``strength.npy`` (N, 1), both float32.

    A bad file is left out and listed in the outcome; the others are written all the same. A scene
    folder appears as a whole or not at all.

    Args:
        files: from :func:`find_files`.
        out: data root to write to; made if missing.
        split: folder below it.
        strength_scale: divide strengths by this; None chooses (:func:`choose_scale`).
        overwrite: replace scene folders that hold another scan; otherwise their file is skipped.
        progress: show a progress bar.

    Raises:
        ValueError: a bad ``strength_scale`` or ``split``.
        OSError: ``out`` cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", split):
        raise ValueError(f"--split: {split!r} is no folder name of letters, digits, - and _")
    if strength_scale is not None and not 0 < strength_scale < np.inf:
        raise ValueError(f"--strength-scale: {strength_scale}, expected a number above 0")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    drop_partial(out)
    scale = choose_scale(files, progress) if strength_scale is None else float(strength_scale)
    outcome = Outcome(scale=scale)
    for file, name in zip(_bar(files, "ingest", progress), scene_names(files)):
        try:
            points, dropped = read_bin(file)
        except OSError as error:
            outcome.skipped[file] = f"cannot be read ({error.strerror})"
            continue
        except ValueError as error:
            outcome.skipped[file] = str(error)
            continue
        if dropped:
            outcome.dropped[file] = dropped
        arrays = {"coord": points[:, :3].copy(), "strength": points[:, 3:] / np.float32(scale)}
        target = out / split / name
        if target.exists() and _same(target, arrays):
            outcome.kept.append(target)
        elif target.exists() and not overwrite:
            outcome.skipped[file] = (
                f"{target} holds another scan; give --overwrite, another --split or another --out"
            )
        else:
            outcome.written.append(write_folder(out, split, name, arrays))
            outcome.points += len(points)
    drop_partial(out)
    return outcome


def _same(folder: Path, arrays: dict[str, np.ndarray]) -> bool:
    try:
        return all(np.array_equal(np.load(folder / f"{k}.npy"), v) for k, v in arrays.items())
    except (OSError, ValueError):
        return False


def _bar(files: Sequence[Path], what: str, progress: bool):
    from tqdm import tqdm

    return tqdm(files, desc=what, unit="scan", disable=not progress)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dos-plugin ingest`` to a parser."""
    parser.add_argument("files", nargs="+", metavar="FILES", help="files, folders or patterns")
    parser.add_argument("--out", required=True, metavar="ROOT", help="data root to write to")
    parser.add_argument("--split", default="train", help="folder below ROOT")
    parser.add_argument(
        "--strength-scale",
        type=float,
        metavar="S",
        help="divide strengths by S (default: 1 where all are at most 1, else 255, else 65535)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace scenes that hold another scan"
    )


def run(args: argparse.Namespace) -> int:
    """Ingest and report; exit status 0, or 2 if anything was left out."""
    try:
        files, missing = find_files(args.files)
        outcome = ingest(files, args.out, args.split, args.strength_scale, args.overwrite)
    except (ValueError, OSError) as error:
        print(f"dos-plugin ingest: {error}", file=sys.stderr)
        return 2
    outcome.skipped = missing | outcome.skipped
    if outcome.scale != 1 and args.strength_scale is None:
        print(f"strengths above 1 found: all divided by {outcome.scale:g} (see --strength-scale)")
    for file, count in outcome.dropped.items():
        print(f"{file}: {count:,} points with NaN or infinite values dropped")
    print(
        f"{len(outcome.written)} scans with {outcome.points:,} points written to "
        f"{Path(args.out) / args.split}"
        + (f", {len(outcome.kept)} were there already" if outcome.kept else "")
    )
    if outcome.skipped:
        print(f"dos-plugin ingest: {len(outcome.skipped)} files skipped:", file=sys.stderr)
        for file, why in outcome.skipped.items():
            print(f"  {file}: {why}", file=sys.stderr)
    return 2 if outcome.skipped else 0
