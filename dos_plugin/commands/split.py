"""A fraction of the training scans, in a form that every dataset class of the host takes.

The host has no common way to name some of the scans: ``DefaultDataset`` reads JSON lists,
``ScanNetDataset`` an ``lr_file``, ``NuScenesDataset`` info files of fixed names, and
``SemanticKITTIDataset`` and ``WaymoDataset`` list whole sequences. What all of them take is a data
root. A split is therefore a data root of its own: the same layout, made of links, without the
scans that were not chosen (for nuScenes, with shorter info files). Validation scans are all in it.
A config then changes in one key, ``data.train.data_root``.

Scans are ordered by a hash of the seed and their names, and the first ones are chosen. So the
scans of 1 % are among those of 10 % with the same seed, on every machine.
"""

import argparse
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dos_plugin.unpickle import read_pickle

FOLDER = "few"  # in the data root, where splits are written by default
RECORD = "split.json"
KITTI_TRAIN = ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10")


@dataclass
class Layout:
    """The training scans of a data root.

    Attributes:
        name: of the layout.
        scans: name of each training scan -> its files or folders, relative to the data root.
        infos: nuScenes alone: info file, relative to the data root -> its entries.
    """

    name: str
    scans: dict[str, list[str]]
    infos: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def _nuscenes(root: Path) -> Layout | None:
    infos = {}
    for path in sorted((root / "info").glob("nuscenes_infos_*sweeps_train.pkl")):
        entries = read_pickle(path)
        infos[str(path.relative_to(root))] = entries
        listed = isinstance(entries, list) and all(isinstance(e, dict) for e in entries)
        if not listed or not all("lidar_token" in entry for entry in entries):
            raise ValueError(f"{path}: expected a list of dicts with 'lidar_token'")
    if not infos:
        return None
    scans: dict[str, list[str]] = {e["lidar_token"]: [] for info in infos.values() for e in info}
    return Layout("nuScenes", scans, infos)


def _semantic_kitti(root: Path) -> Layout | None:
    sequences = Path("dataset/sequences")
    scans = {}
    for sequence in KITTI_TRAIN:
        for path in (root / sequences / sequence / "velodyne").glob("*.bin"):
            scan = sequences / sequence / "velodyne" / path.name
            label = sequences / sequence / "labels" / f"{path.stem}.label"
            scans[f"{sequence}_{path.stem}"] = [str(scan), str(label)]
    return Layout("SemanticKITTI", scans) if scans else None


def _waymo(root: Path) -> Layout | None:
    scans = {
        f"{path.parent.name}_{path.name}": [str(path.relative_to(root))]
        for path in (root / "training").glob("*/*")
        if path.is_dir()
    }
    return Layout("Waymo", scans) if scans else None


def _scenes(root: Path) -> Layout | None:
    paths = [path for path in (root / "train").glob("*") if (path / "coord.npy").is_file()]
    scans = {path.name: [f"train/{path.name}"] for path in paths}
    return Layout("scene folders (ScanNet, dos-plugin scenes and ingest)", scans) if scans else None


LAYOUTS = {
    "info/nuscenes_infos_*sweeps_train.pkl (nuScenes)": _nuscenes,
    "dataset/sequences/00/velodyne/*.bin (SemanticKITTI)": _semantic_kitti,
    "training/<sequence>/<frame>/ (Waymo)": _waymo,
    "train/<scene>/coord.npy (ScanNet, dos-plugin scenes and ingest)": _scenes,
}


def find_layout(root: Path) -> Layout:
    """The layout of a data root.

    Raises:
        FileNotFoundError: there is no such folder, or no layout is recognised.
        ValueError: an info file is unreadable.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"DATA_ROOT: there is no folder {root}")
    for find in LAYOUTS.values():
        layout = find(root)
        if layout is not None:
            return layout
    raise FileNotFoundError(
        f"DATA_ROOT: no training scan is found in {root}; looked for " + ", ".join(LAYOUTS)
    )


def choose(names: Iterable[str], fraction: float, seed: int = 0) -> list[str]:
    """The chosen ones of some names, sorted: ``fraction`` of them, rounded.

    Raises:
        ValueError: a fraction outside (0, 1], a negative seed, or no name is left.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"--fraction: {fraction}, expected a number above 0 and at most 1")
    if seed < 0:
        raise ValueError(f"--seed: {seed}, expected 0 or more")
    ordered = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    count = round(fraction * len(ordered))
    if not count:
        raise ValueError(
            f"--fraction: {fraction:g} of {len(ordered):,} training scans leaves none; "
            f"the smallest that leaves one is {1 / len(ordered):.3g}"
        )
    return sorted(ordered[:count])


@dataclass
class Split:
    """A split that was written: its data root and what it was chosen from."""

    out: Path
    layout: str
    chosen: list[str]
    total: int


def write_split(
    root: str | os.PathLike, fraction: float, seed: int = 0, out: str | os.PathLike | None = None
) -> Split:
    """Choose scans of a data root and write the data root of links that has them alone.

    Args:
        root: data root as the host takes it.
        fraction: of the training scans, in (0, 1].
        seed: another seed chooses other scans.
        out: folder to write; default ``root/few/<fraction>-seed<seed>``. A split that stands
            there is replaced.

    Raises:
        FileNotFoundError: see :func:`find_layout`.
        ValueError: see :func:`choose`; or ``out`` cannot be the place.
        OSError: ``out`` cannot be written.
    """
    root = Path(root)
    layout = find_layout(root)
    chosen = choose(layout.scans, fraction, seed)
    out = Path(out) if out is not None else root / FOLDER / f"{fraction:g}-seed{seed}"
    own = _check_place(out, root, layout)
    kept = set(chosen)
    omitted = {path for name, paths in layout.scans.items() if name not in kept for path in paths}
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        _link(
            root.resolve(), partial.resolve(), omitted | own | {RECORD, partial.name, *layout.infos}
        )
        for name, entries in layout.infos.items():
            entries = [entry for entry in entries if entry["lidar_token"] in kept]
            (partial / name).write_bytes(pickle.dumps(entries))
        record = dict(fraction=fraction, seed=seed, total=len(layout.scans), scans=chosen)
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    except PermissionError as error:
        raise PermissionError(f"{error.filename}: cannot be written; choose --out") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Split(out, layout.name, chosen, len(layout.scans))


def _check_place(out: Path, root: Path, layout: Layout) -> set[str]:
    """What the links leave out because splits stand there, if ``out`` is in the data root."""
    if out.exists() and not (out / RECORD).is_file():
        raise ValueError(f"--out: {out} exists and is no split; choose another folder")
    if layout.name == "SemanticKITTI" and "velodyne" in str(out):
        # the host finds labels by replacing this word anywhere in the path
        raise ValueError(f"--out: {out} must not contain 'velodyne', or no label is found")
    real_root, real_out = root.resolve(), out.resolve()
    if real_root not in real_out.parents:
        return {FOLDER}
    first = real_out.relative_to(real_root).parts[0]
    if first != FOLDER and (root / first).exists() and not (root / first / RECORD).is_file():
        raise ValueError(f"--out: {out} lies in {root / first}, which belongs to the data")
    return {FOLDER, first}


def _link(source: Path, target: Path, omitted: set[str]) -> None:
    """Fill ``target`` with relative links to what is in ``source``, without the omitted paths."""
    above = {str(parent) for path in omitted for parent in Path(path).parents}

    def fill(folder: str) -> None:
        for entry in os.scandir(source / folder):
            path = os.path.normpath(os.path.join(folder, entry.name))
            if path in omitted:
                continue
            if path in above:
                (target / path).mkdir()
                fill(path)
            else:
                place = (target / path).parent
                (target / path).symlink_to(os.path.relpath(source / path, place))

    fill(".")


EXAMPLES = """examples:
  dos-plugin split data/nuscenes --fraction 0.01"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dos-plugin split`` to a parser."""
    parser.epilog = EXAMPLES
    parser.add_argument("root", metavar="DATA_ROOT", help="data root as the host takes it")
    parser.add_argument(
        "--fraction", type=float, required=True, help="of the training scans, above 0, at most 1"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed chooses other scans")
    parser.add_argument(
        "--out",
        metavar="ROOT",
        help=f"folder to write (default: DATA_ROOT/{FOLDER}/FRACTION-seedSEED)",
    )


def main(args: argparse.Namespace) -> int:
    """Write a split and say how to use it."""
    _tell(write_split(args.root, args.fraction, args.seed, args.out), vars(args))
    return 0


def _tell(split: Split, args: Mapping[str, Any]) -> None:
    count, times = len(split.chosen), round(split.total / len(split.chosen))
    print(
        f"{split.layout}: {count:,} of {split.total:,} training scans "
        f"(fraction {args['fraction']:g}, seed {args['seed']}), validation and test scans all"
    )
    print(f"written to {split.out}, the scans are listed in {split.out / RECORD}")
    print(f"in a config:  data = dict(train=dict(data_root={str(split.out)!r}))")
    print(f"or:           --options data.train.data_root={split.out}")
    if times > 1:
        print(
            f"{times:,} times fewer scans: for as many steps as before, multiply epoch by {times} "
            "and leave eval_epoch (the host repeats the scans epoch // eval_epoch times)."
        )
