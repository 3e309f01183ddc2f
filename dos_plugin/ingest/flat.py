"""Columns of numbers without names: plain ``.bin`` files, and arrays of numpy.

A ``.bin`` says nothing about itself. It is read in every way that its size allows, and taken where
one of them alone can be a scan.
"""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from .fields import Fields, columns_of

DTYPES = {"float32": "<f4", "float64": "<f8"}
COLUMNS = range(3, 17)
NAMES = {
    3: ("x", "y", "z"),
    4: ("x", "y", "z", "intensity"),
    5: ("x", "y", "z", "intensity", "ring"),
}
UNUSED = "_"  # a column of this name is left out
ENOUGH = 1_000  # bytes; with fewer, that a single reading fits its size tells enough
SAMPLE = 6_000  # numbers that are looked at
FARTHEST = 1e4  # metres; other units, map coordinates and other layouts soon show larger ones
NEAREST = 1e-6  # metres; what is nearer and not 0 is a number of another layout
STRAY = 0.01  # share of values that may be so in a good scan
FEW = 100  # rows of an array that is no scan, if there is another
# Of points in .npz, best first; the second is A2D2's.
POINTS = ("points", "pcloud_points", "coord", "xyz", "pos", "lidar", "pc", "data", "arr_0")
NO_POINTS = ("normal", "normals")
COLORS = ("color", "colors", "rgb")


def read_bin(file: Path, columns: Sequence[str] | None = None, dtype: str | None = None) -> Fields:
    """Columns of a ``.bin`` file.

    Args:
        file: the file; one with the content of a ``.npy`` is read as such.
        columns: names of its columns; None tells 3 to 5 columns apart.
        dtype: ``float32`` or ``float64``; None with ``columns``: the first.

    Raises:
        OSError: it cannot be read.
        ValueError: its size does not fit, or no reading or several are plausible.
    """
    data = file.read_bytes()
    if data.startswith(b"\x93NUMPY"):
        return read_npy(file, columns)
    if columns is None:
        count, dtype = tell_apart(data, dtype)
        columns = NAMES[count]
    return name_columns(_rows(data, DTYPES[dtype or "float32"], len(columns), columns), columns)


def name_columns(rows: np.ndarray, columns: Sequence[str]) -> Fields:
    """The columns of an array (N, C) under their names; those called ``_`` are left out."""
    return {name: rows[:, i] for i, name in enumerate(columns) if name != UNUSED}


def _rows(data: bytes, dtype: str, count: int, columns: Sequence[str]) -> np.ndarray:
    row = np.dtype(dtype).itemsize * count
    if len(data) % row:
        raise ValueError(
            f"{len(data):,} bytes is not a multiple of {row} ({np.dtype(dtype)} "
            f"{' '.join(columns)}): cut off, or of another layout"
        )
    return np.frombuffer(data, dtype).reshape(-1, count)


def tell_apart(data: bytes, dtype: str | None = None) -> tuple[int, str]:
    """Number of columns and type of plain numbers.

    Each column of a scan has its own kind of numbers. Read with a wrong number of columns, they
    are mixed, and all columns look the same. So the reading whose columns differ most is the right
    one, or one of a multiple of its columns.

    Args:
        data: the file.
        dtype: ``float32``, ``float64``, or None for either.

    Raises:
        ValueError: no reading is plausible, several are, or its columns need names.
    """
    dtypes = [dtype] if dtype else list(DTYPES)
    numbers = {name: len(data) // np.dtype(DTYPES[name]).itemsize for name in dtypes}
    fitting = [
        (name, count)
        for name, count in product(dtypes, COLUMNS)
        if len(data) % (np.dtype(DTYPES[name]).itemsize * count) == 0
        and numbers[name] >= count**2  # as many rows as columns
    ]
    if not fitting:
        raise ValueError(
            f"{len(data):,} bytes is not a multiple of {' or '.join(dtypes)} in 3 to 16 columns: "
            "cut off, or of another layout"
        )
    plausible = [(name, c) for name, c in fitting if _can_be_scan(_sample(data, DTYPES[name], c))]
    if len(plausible) > 1 or len(data) > ENOUGH:
        plausible = [
            (name, count)
            for name in dtypes
            if (count := _distinct_columns(data, name, [c for n, c in plausible if n == name]))
        ]
    remedy = "say what is in it, such as --columns x,y,z,intensity --dtype float32"
    if not plausible:
        raise ValueError(f"no plausible scan in 3 to 16 columns of {' or '.join(dtypes)}: {remedy}")
    if len(plausible) > 1:
        readings = " or ".join(f"{count} columns of {name}" for name, count in plausible)
        raise ValueError(f"it can be {readings}: {remedy}")
    ((name, count),) = plausible
    if count not in NAMES:
        raise ValueError(
            f"{count} columns of {name}, it seems: name them, such as --columns x,y,z,r,g,b or "
            "--columns x,y,z,intensity,elongation,time"
        )
    return count, name


def _sample(data: bytes, dtype: str, count: int) -> np.ndarray:
    """Rows (n, count) of finite numbers, float64, drawn by chance: even steps would be in step
    with a wrong number of columns."""
    values = np.frombuffer(data, dtype, len(data) // np.dtype(dtype).itemsize // count * count)
    rows = values.reshape(-1, count)
    if rows.size > SAMPLE:
        rows = rows[np.random.default_rng(0).integers(0, len(rows), SAMPLE // count)]
    with np.errstate(invalid="ignore"):
        rows = rows.astype(np.float64)
    return rows[np.isfinite(rows).all(1)]


def _can_be_scan(rows: np.ndarray) -> bool:
    """Whether the first columns can be metres, and the fourth of four or five a strength."""
    if not len(rows):
        return False
    size = np.abs(rows[:, :3])
    stray = (size > FARTHEST) | ((size > 0) & (size < NEAREST))
    negative = (rows[:, 3] < 0) & (rows[:, 3] != -1) if rows.shape[1] in (4, 5) else np.zeros(1)
    return bool(stray.mean() <= STRAY and size.any() and negative.mean() <= STRAY)


def _distinct_columns(data: bytes, dtype: str, counts: Sequence[int]) -> int:
    """The number of columns, one of ``counts``, under which they differ most; 0: none does."""
    if not counts:
        return 0
    scores, chance = {1: 0.0}, {1: 0.0}  # chance: what columns of the same kind seldom reach
    itemsize = np.dtype(DTYPES[dtype]).itemsize
    for count in {2, 3, *counts}:
        if len(data) % (itemsize * count) == 0:
            rows = _sample(data, DTYPES[dtype], count)
            scores[count] = _differences(rows)
            chance[count] = 3 * np.sqrt(2 * count) / max(rows.size, 1)
    best = max(scores, key=lambda count: scores[count])
    if scores[best] <= chance[best]:
        return 0
    margin = min(0.05 + chance[best], 0.4 * scores[best])
    near = [count for count, score in scores.items() if score >= scores[best] - margin]
    smallest = min(near)
    alone = all(count % smallest == 0 for count in near)
    return smallest if alone and smallest in counts else 0


def _differences(rows: np.ndarray) -> float:
    """Share of the variance of values (N, C), and of signs and the like of them, that lies
    between columns; about 0 for columns of the same kind."""
    shares = []
    size = np.abs(rows)
    looks = np.arcsinh(rows), np.arcsinh(size), np.sign(rows), rows == np.round(rows), size <= 1
    for values in looks:
        values = values.astype(np.float64)
        total = values.var()
        if total > 1e-3:
            between = values.mean(0).var() / total
            free = (values.size - 1) / max(values.size - values.shape[1], 1)
            shares.append(1 - (1 - between) * free)
    return float(np.mean(shares)) if shares else 0.0


def read_npy(file: Path, columns: Sequence[str] | None = None) -> Fields:
    """Columns of a ``.npy`` file: (N, C) numbers, organised (H, W, C) ones, or named fields.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else.
    """
    array = np.load(file)
    if array.dtype == np.uint8 and array.ndim == 3:
        raise ValueError(f"bytes of shape {array.shape}: a picture, not points")
    if array.shape == (4, 4) and np.array_equal(array[3], [0, 0, 0, 1]):
        raise ValueError("a (4, 4) pose, not points")
    return _of_array(array, columns)


def read_npz(file: Path, columns: Sequence[str] | None = None) -> Fields:
    """Columns of a ``.npz`` file: one array of points, and beside it arrays of one value a point;
    or all columns as arrays. Arrays of Python objects are left out.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else, or several arrays could be the points.
    """
    arrays = _load_npz(file)
    rows = [name for name, a in arrays.items() if a.dtype.names or _is_table(a)]
    colors = [name for name in rows if name.lower() in COLORS]
    table = _table_of_points({name: arrays[name] for name in rows if name not in colors})
    fields: Fields = {} if table is None else _of_array(arrays[table], columns)
    count = len(next(iter(fields.values()))) if fields else None
    for name in colors:
        if arrays[name].shape == (count, 3) or not fields:
            fields |= name_columns(arrays[name], ("red", "green", "blue"))
    for name, array in arrays.items():
        flat = array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
        if flat.ndim == 1 and flat.dtype.kind in "fiu" and count in (None, len(flat)):
            fields[name] = flat
    if not fields:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise ValueError(f"no array of points among {shapes or 'none'}")
    return fields


def _load_npz(file: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with np.load(file) as content:
        for name in content.files:
            try:
                arrays[name] = content[name]
            except ValueError as error:
                if "Object arrays" not in str(error):
                    raise
    return arrays


def _table_of_points(tables: dict[str, np.ndarray]) -> str | None:
    """The array of points among tables: by its name, else the only one, beside poses and others
    of few rows, that can hold coordinates; None: there is none."""
    by_name = {name.lower(): name for name in reversed(tables)}
    for name in POINTS:
        if name in by_name:
            return by_name[name]
    # calibration and boxes have few rows, pictures are bytes
    able = [n for n, a in tables.items() if n.lower() not in NO_POINTS and a.dtype.itemsize > 1]
    large = [name for name in able if math.prod(tables[name].shape[:-1]) > FEW] or able
    if len(large) > 1:
        listed = ", ".join(f"{name} {tables[name].shape}" for name in large)
        raise ValueError(f"several arrays could be the points: {listed}; call theirs 'points'")
    return large[0] if large else None


def _is_table(array: np.ndarray) -> bool:
    return array.ndim in (2, 3) and array.shape[-1] >= 3 and array.dtype.kind in "fiu"


def _of_array(array: np.ndarray, columns: Sequence[str] | None) -> Fields:
    if array.dtype.names:
        return columns_of(array.reshape(-1))
    if not _is_table(array):
        raise ValueError(
            f"an array of shape {array.shape} and type {array.dtype}, expected numbers (N, 3) "
            "or more columns, or named fields"
        )
    rows = array.reshape(-1, array.shape[-1])
    if columns is None:
        columns = ["x", "y", "z", *map(str, range(3, rows.shape[1]))]
    if len(columns) != rows.shape[1]:
        raise ValueError(f"{rows.shape[1]} columns, but --columns names {len(columns)}")
    return name_columns(rows, columns)
