"""Scan files as named columns: ``read_fields`` gives the same thing for every format."""

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

Fields = dict[str, np.ndarray]  # name -> (N,); columns without a name have their number as name


def _floats(file: Path, names: tuple[str, ...]) -> Fields:
    data = file.read_bytes()
    row = 4 * len(names)
    if len(data) % row:
        raise ValueError(
            f"{len(data):,} bytes is not a multiple of {row} (float32 {' '.join(names)}): "
            "cut off, or of another layout"
        )
    rows = np.frombuffer(data, "<f4").reshape(-1, len(names))
    return {name: rows[:, column] for column, name in enumerate(names)}


def _kitti(file: Path) -> Fields:
    return _floats(file, ("x", "y", "z", "intensity"))


def _nuscenes(file: Path) -> Fields:
    return _floats(file, ("x", "y", "z", "intensity", "ring"))


def _npy(file: Path) -> Fields:
    array = np.load(file)
    if array.dtype.names:
        return _columns(array.reshape(-1))
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"an array of shape {array.shape} and type {array.dtype}, expected numbers (N, 3) "
            "or more columns, or named fields"
        )
    names = ["x", "y", "z", *map(str, range(3, array.shape[1]))]
    return {name: array[:, column] for column, name in enumerate(names)}


def _pcd(file: Path) -> Fields:
    from pypcd4 import PointCloud

    cloud = PointCloud.from_path(file)
    expected = cloud.metadata.points
    if len(cloud.pc_data) != expected:
        raise ValueError(f"cut off: {len(cloud.pc_data):,} of {expected:,} points")
    return _columns(np.atleast_1d(cloud.pc_data))


def _ply(file: Path) -> Fields:
    from plyfile import PlyData

    ply = PlyData.read(str(file), mmap=False)
    if "vertex" not in ply:
        raise ValueError("a .ply file without the element 'vertex'")
    return _columns(np.atleast_1d(ply["vertex"].data))


def _columns(rows: np.ndarray) -> Fields:
    """The plain fields of a structured array; lists and vectors are left out."""
    names = rows.dtype.names or ()
    return {name: rows[name] for name in names if rows.dtype[name].kind in "fiu"}


READERS: dict[str, Callable[[Path], Fields]] = {
    "kitti": _kitti,
    "nuscenes": _nuscenes,
    "npy": _npy,
    "pcd": _pcd,
    "ply": _ply,
}
LIBRARIES = {"pcd": "pypcd4", "ply": "plyfile"}


def import_libraries(formats: Iterable[str]) -> None:
    """Import what the formats need.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    for name in sorted(set(formats) & set(LIBRARIES)):
        importlib.import_module(LIBRARIES[name])


def read_fields(file: Path, kind: str) -> Fields:
    """The columns of a scan file, all of the same length.

    Args:
        file: the file.
        kind: its format, a key of :data:`READERS`.

    Raises:
        OSError: it cannot be read.
        ValueError: its content is not of this format, or it holds no point.
    """
    if file.is_file() and not file.stat().st_size:
        raise ValueError("no point, the file is empty")
    try:
        fields = READERS[kind](file)
    except OSError:
        raise
    except Exception as error:  # what the libraries raise on bad files is of many types
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"cannot be read as {kind}: {why}") from error
    if not fields or not len(next(iter(fields.values()))):
        raise ValueError("no point")
    return fields
