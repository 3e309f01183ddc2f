"""``dos-plugin features``: features of scans into ``.npz`` files, one a scan.

A file holds ``feat`` (N, C) and ``coord`` (N, 3) of the points, or with ``--per voxel`` those of
the voxels and ``voxel`` (N,), the voxel of each point; ``row`` (N,), the row of each point in its
scan file; and ``made``, what it was made of. A file that was made of the same is kept, so that a
run goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dos_plugin.commands.ingest import add_plain_numbers
from dos_plugin.encoder.encoder import MAX_VOXELS, Encoder, load
from dos_plugin.encoder.features import Features
from dos_plugin.encoder.scan import is_scene
from dos_plugin.ingest.sources import find_files, scene_names
from dos_plugin.messages import one_line
from dos_plugin.probing.compare import progress
from dos_plugin.whole_file import write_whole

EXAMPLES = """examples:
  dos-plugin features drive --checkpoint exp/dos/demo --out features --half"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin features``."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("source", nargs="+", metavar="SOURCE", help="scan files, scene folders, folders of these")
    add(
        "--checkpoint",
        required=True,
        help="run's folder, checkpoint, exported file or folder, or owner/name on the Hub",
    )
    add("--out", required=True, type=Path, metavar="DIR", help="folder to write to")
    add(
        "--branch",
        choices=("student", "teacher", "segmentor"),
        help="whose backbone; default: the student's of a pretraining, else the only one",
    )
    add("--config", help="config of the run, if it is not in the run's folder")
    add("--per", choices=("point", "voxel"), default="point", help="rows of the features")
    add("--half", action="store_true", help="features as float16, in half the space")
    add("--format", help="of all files, as of dos-plugin ingest (default: by suffix)")
    add_plain_numbers(parser)
    add("--strength-field", metavar="NAME", help="field with the strengths, 'none' for none")
    add(
        "--strength-scale",
        type=float,
        metavar="S",
        help="divide strengths by S (default: by 1 or 255, as each file needs, with a warning)",
    )
    add("--device", help="such as cpu or cuda:1 (default: the GPU if there is one)")
    add(
        "--max-voxels",
        type=int,
        default=MAX_VOXELS,
        help="encode larger scans in parts of so many",
    )
    add("--overwrite", action="store_true", help="replace files that were made of something else")


def main(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin features``: exit status 0, or 2 if a scan was left out."""
    scans, skipped = find_scans(args.source)
    encoder = load(
        args.checkpoint,
        args.branch,
        config=args.config,
        device=args.device,
        max_voxels=args.max_voxels,
    )
    print(encoder)
    args.out.mkdir(parents=True, exist_ok=True)
    weights = digest(encoder)
    kept = written = 0
    for path, name in progress(list(zip(scans, scene_names(scans))), "features"):
        try:
            if _write(encoder, args, path, args.out / f"{name}.npz", weights):
                written += 1
            else:
                kept += 1
        except (OSError, ValueError) as error:
            skipped[path] = one_line(error)
    were = f", {kept} were there already" if kept else ""
    print(f"features of {written} scans written to {args.out}{were}")
    if skipped:
        print(f"dos-plugin features: {len(skipped)} skipped:", file=sys.stderr)
        for path, why in skipped.items():
            print(f"  {why if str(path) in why else f'{path}: {why}'}", file=sys.stderr)
    return 2 if skipped else 0


def find_scans(sources: Sequence[str]) -> tuple[list[Path], dict[Path, str]]:
    """Scan files and scene folders that are named, or lie in a folder that is named.

    Returns:
        the scans, each once, and for each source that names nothing, why.
    """
    scans: list[Path] = []
    missing: dict[Path, str] = {}
    for source in sources:
        path = Path(source)
        scenes = sorted(file.parent for file in path.rglob("coord.npy")) if path.is_dir() else []
        if scenes:
            scans += scenes
        else:
            files, none = find_files([source])
            scans += files
            missing |= none
    return list(dict.fromkeys(scans)), missing


def digest(encoder: Encoder) -> str:
    """A number that other weights, voxels or inputs do not have."""
    found = hashlib.sha256(f"{encoder.feat_keys} {encoder.grid_size}".encode())
    for name, value in encoder.backbone.state_dict().items():
        found.update(name.encode())
        found.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return found.hexdigest()[:16]


def content(features: Features, per: str, half: bool) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Args:
        features: of a scan.
        per: ``"point"`` or ``"voxel"``.
        half: features are float16.
    """
    dtype = np.float16 if half else np.float32
    feat = features.per_point if per == "point" else features.per_voxel
    arrays = {"feat": feat.numpy().astype(dtype, copy=False), "row": features.scan.row}
    if per == "point":
        return arrays | {"coord": features.scan.coord}
    return arrays | {"coord": features.voxel_coord.numpy(), "voxel": features.voxel.numpy()}


def _write(
    encoder: Encoder, args: argparse.Namespace, path: Path, file: Path, weights: str
) -> bool:
    """Write the features of a scan; False if they are there.

    Raises:
        OSError, ValueError: the scan is bad, or the file was made of something else.
    """
    read = [*path.iterdir()] if is_scene(path) else [path]
    made = json.dumps(
        dict(
            scan=str(path.resolve()),
            changed=max(part.stat().st_mtime_ns for part in read),
            weights=weights,
            per=args.per,
            half=args.half,
            options=_reading(args),
            max_voxels=args.max_voxels,
        )
    )
    if file.exists() and not args.overwrite:
        if _made(file) != made:
            raise ValueError(
                f"{file} was made of another scan, encoder or options; give --overwrite or another "
                "--out"
            )
        return False
    scan = encoder.read(path, *_reading(args))
    arrays: dict[str, Any] = content(encoder(scan), args.per, args.half)
    write_whole(file, lambda partial: np.savez(partial, made=made, **arrays))
    return True


def _reading(args: argparse.Namespace) -> list[Any]:
    """How the files are to be read, in the order of :meth:`Encoder.read`."""
    numbers = [args.columns, args.dtype]
    return [args.format, args.strength_field, args.strength_scale, *numbers]


def _made(file: Path) -> str | None:
    """What a file says that it was made of; None if it says nothing."""
    try:
        with np.load(file) as arrays:
            return str(arrays["made"])
    except Exception:  # a damaged file fails in any way
        return None
