"""Scan files as named columns: ``read_fields`` gives the same thing for every format."""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .fields import Fields, columns_of
from .flat import NAMES, read_bin, read_npy, read_npz
from .las import read_las
from .pcd import read_pcd
from .recordings import read_recording

__all__ = ["FORMATS", "Fields", "Reading", "import_libraries", "read_fields", "read_scans"]


@dataclass(frozen=True)
class Reading:
    """What the user says of files that do not say it themselves.

    Attributes:
        columns: names of the columns of plain numbers, ``_`` for one to leave out; None: as usual.
        dtype: ``float32`` or ``float64``, of plain numbers; None: as usual.
        topic: of the scans of a recording; None: the only one.
        every: take every n-th scan of a recording.
    """

    columns: tuple[str, ...] | None = None
    dtype: str | None = None
    topic: str | None = None
    every: int = 1


def _ply(file: Path) -> Fields:
    from plyfile import PlyData

    ply = PlyData.read(str(file))  # maps the file: read row by row it takes a thousand times longer
    if "vertex" not in ply:
        raise ValueError("a .ply file without the element 'vertex'")
    return columns_of(np.atleast_1d(ply["vertex"].data))


def _feather(file: Path) -> Fields:
    from pyarrow import feather

    table = feather.read_table(str(file))
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return {name: values for name, values in columns.items() if values.dtype.kind in "fiu"}


@dataclass(frozen=True)
class Format:
    """A format of scan files.

    Attributes:
        suffixes: of its files.
        read: gives the columns of a file with one scan, or the scans of one, each with its name.
        libraries: modules that it needs, beyond numpy.
        text: what it holds, in a few words.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Path, Reading], Fields | Iterator[tuple[str, Fields]]]
    text: str
    libraries: tuple[str, ...] = ()


def _bin(names: tuple[str, ...]) -> Callable[[Path, Reading], Fields]:
    return lambda file, how: read_bin(file, how.columns or names, how.dtype)


# A program of one's own adds to it before it runs a command (docs/extending.md).
FORMATS = {
    "nuscenes": Format((".pcd.bin",), _bin(NAMES[5]), "float32 x y z intensity ring"),
    "bin": Format(
        (".bin",),
        lambda file, how: read_bin(file, how.columns, how.dtype),
        "x y z, x y z intensity, or x y z intensity ring; others by --columns and --dtype",
    ),
    "kitti": Format((), _bin(NAMES[4]), "float32 x y z intensity"),
    "npy": Format(
        (".npy",),
        lambda file, how: read_npy(file, how.columns),
        "(N, 3) or more columns, or named fields",
    ),
    "npz": Format(
        (".npz",),
        lambda file, how: read_npz(file, how.columns),
        "an array of points, and arrays of one value a point",
    ),
    "pcd": Format(
        (".pcd",), lambda file, how: read_pcd(file), "ascii, binary, binary_compressed", ("lzf",)
    ),
    "ply": Format(
        (".ply",), lambda file, how: _ply(file), "the fields of the element vertex", ("plyfile",)
    ),
    "las": Format(
        (".las", ".laz"),
        lambda file, how: read_las(file),
        "maps: intensity, classification, colours",
        ("laspy", "lazrs"),
    ),
    "feather": Format((".feather",), lambda file, how: _feather(file), "Argoverse 2", ("pyarrow",)),
    "ros": Format(
        (".bag", ".mcap", ".db3"),
        lambda file, how: read_recording(file, how.topic, how.every),
        "recordings of ROS 1 and 2, also folders with metadata.yaml",
        ("rosbags",),
    ),
}


def import_libraries(formats: Iterable[str]) -> None:
    """Import what the formats need.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    for name in sorted(set(formats)):
        for library in FORMATS[name].libraries:
            importlib.import_module(library)


def read_scans(file: Path, kind: str, how: Reading | None = None) -> Iterator[tuple[str, Fields]]:
    """The scans of a file, one after the other: name within the file, and columns (N,).

    Args:
        file: the file; some hold one scan, whose name is empty, recordings hold many.
        kind: its format, a key of :data:`FORMATS`.
        how: what the user says of the file.

    Raises:
        OSError: it cannot be read.
        ValueError: its content is not of this format, or it holds no point.
        ModuleNotFoundError: the library for it is not installed.
    """
    if file.is_file() and not file.stat().st_size:
        raise ValueError("no point, the file is empty")
    try:
        content = FORMATS[kind].read(file, how or Reading())
        yield from [("", content)] if isinstance(content, dict) else content
    except (OSError, ModuleNotFoundError):
        raise
    except Exception as error:  # what the libraries raise on bad files is of many types
        why = " ".join(str(error).split())[:250]
        raise ValueError(f"cannot be read as {kind}: {why}") from error


def read_fields(file: Path, kind: str, how: Reading | None = None) -> Fields:
    """The columns of a scan file, all of the same length; of a recording those of its first scan.

    Args: as of :func:`read_scans`.

    Raises: as :func:`read_scans`.
    """
    for _, fields in read_scans(file, kind, how):
        if not fields or not len(next(iter(fields.values()))):
            break
        return fields
    raise ValueError("no point")
