"""Points of a scan as a user has them: out of arrays, a scan file or a scene folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from dos_plugin.ingest.readers import Fields, Reading, read_fields
from dos_plugin.ingest.scan import FARTHEST, make_scan
from dos_plugin.ingest.sources import format_of
from dos_plugin.messages import warn_counted

# Columns of normals by the names of .ply and of .pcd files.
NORMALS = (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"))
# Labels of a scene folder: DefaultDataset's, and ScanNet's.
SEGMENTS = ("segment", "segment20")
# The format whose strengths have a known range: nuScenes, as its data set of the host reads it.
STRENGTH_OF_NUSCENES = 255.0
# Share of strengths that may be beyond the divisor.
STRAY = 0.001


class Input(NamedTuple):
    """What an encoder is given of every point.

    Attributes:
        columns: numbers a point.
        unit: what a number means.
        low: smallest value.
        high: largest value.
    """

    columns: int
    unit: str
    low: float
    high: float

    def __str__(self) -> str:
        limits = f", {self.low:g} to {self.high:g}" if np.isfinite(self.high) else ""
        return f"(N, {self.columns}), {self.unit}{limits}"


# The per-point keys of the host, as its data sets give them.
INPUTS = {
    "coord": Input(3, "metres, z up, in the frame of the sensor", -np.inf, np.inf),
    "strength": Input(1, "intensity of the return", 0.0, 1.0),
    "color": Input(3, "red, green, blue", 0.0, 255.0),
    "normal": Input(3, "unit vectors", -1.0, 1.0),
}


@dataclass(frozen=True, repr=False)
class Scan:
    """A scan of N points; arrays that it does not have are None.

    Attributes:
        coord: (N, 3) float32, metres, z up.
        strength: (N, 1) float32, divided by ``strength_scale``.
        color: (N, 3) uint8, red, green and blue.
        normal: (N, 3) float32 unit vectors.
        segment: (N,) int64 class, -1 without label.
        name: what it is called in messages, and its place if it was read.
        row: (N,) int64 row in its file of every point: a file may hold more, which are left out,
            such as those with NaN.
        strength_scale: what the strengths were divided by; None if nobody said, so that they must
            be in the range of pretraining.
    """

    coord: np.ndarray
    strength: np.ndarray | None
    color: np.ndarray | None
    normal: np.ndarray | None
    segment: np.ndarray | None
    name: str
    row: np.ndarray
    strength_scale: float | None = None

    def __len__(self) -> int:
        return len(self.coord)

    def __repr__(self) -> str:
        size = " x ".join(f"{extent:.1f}" for extent in np.ptp(self.coord, axis=0))
        there = [key for key in (*INPUTS, "segment") if getattr(self, key) is not None]
        scale = self.strength_scale
        divided = f", strengths divided by {scale:g}" if scale not in (None, 1) else ""
        return f"Scan({self.name}: {len(self):,} points, {size} m, {', '.join(there)}{divided})"


def from_arrays(
    coord: Any,
    strength: Any = None,
    color: Any = None,
    normal: Any = None,
    segment: Any = None,
    name: str = "scan",
    strength_scale: float | None = None,
    row: np.ndarray | None = None,
) -> Scan:
    """A scan of arrays or tensors; see :class:`Scan`.

    Args:
        coord: (N, 3) metres.
        strength: (N,) or (N, 1).
        color: (N, 3), 0 to 255.
        normal: (N, 3).
        segment: (N,) whole numbers.
        name: what it is called in messages.
        strength_scale: strengths are divided by it; None leaves them as they are.
        row: (N,) row of every point in its file; None counts them.

    Raises:
        ValueError: a shape, no point, values that are NaN or infinite, or coordinates and colours
            that cannot be what they should be; names the array.
    """
    xyz = _array("coord", coord, name)
    if xyz.ndim != 2 or xyz.shape[1] != 3:
        raise ValueError(f"coord of {name}: has shape {xyz.shape}, expected (N, 3) metres")
    if not len(xyz):
        raise ValueError(f"coord of {name}: no point, expected at least one")
    _check_finite("coord", xyz, name)
    if (farthest := np.abs(xyz).max()) > FARTHEST:
        raise ValueError(
            f"coord of {name}: up to {farthest:.4g} m, expected at most {FARTHEST:g} in the frame "
            "of the sensor: subtract the offset of a map, divide millimetres by 1000"
        )
    if strength_scale is not None and not 0 < strength_scale < np.inf:
        raise ValueError(f"strength_scale: {strength_scale:g}, expected a number above 0")
    if strength is not None:
        strength = _rows("strength", strength, xyz, 1, name).astype(np.float32)
        strength = strength / np.float32(strength_scale or 1)
    if color is not None:
        color = _as_bytes(_rows("color", color, xyz, 3, name), name)
    if normal is not None:
        normal = _rows("normal", normal, xyz, 3, name).astype(np.float32)
    if segment is not None:
        segment = _rows("segment", segment, xyz, 1, name)[:, 0]
        if not np.array_equal(segment, whole := segment.astype(np.int64)):
            raise ValueError(f"segment of {name}: labels that are no whole numbers")
        segment = whole
    return Scan(
        coord=xyz.astype(np.float32),
        strength=strength,
        color=color,
        normal=normal,
        segment=segment,
        name=name,
        row=np.arange(len(xyz)) if row is None else row,
        strength_scale=strength_scale,
    )


def read_scan(
    path: str | Path,
    format: str | None = None,
    strength_field: str | None = None,
    strength_scale: float | None = None,
    columns: Sequence[str] | None = None,
    dtype: str | None = None,
) -> Scan:
    """A scan of a file, or of a scene folder in the host's layout.

    Args:
        path: a file of any format that ``dos-plugin ingest`` reads, or a folder with ``coord.npy``.
        format: of the file; None: by its suffix.
        strength_field: column of strengths, ``none`` for no strength; None looks for one.
        strength_scale: strengths are divided by it. None divides those of nuScenes by 255, as its
            data set does; of other files by 1 or 255, whichever brings all but 0.1 % to at most 1,
            and these count as 1, with a warning if any is above 1; those of a folder stay.
        columns: names of the columns of plain numbers (``.bin``, ``.npy``, ``.npz``), ``_`` for one
            to leave out; None: told apart.
        dtype: of the numbers in a ``.bin``, ``float32`` or ``float64``; None: told apart.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: its content is bad, or strengths go beyond 255 and ``strength_scale`` is None;
            names the file.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, strength_scale)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such scan file or scene folder")
    try:
        kind = format or format_of(path)
        how = Reading(None if columns is None else tuple(columns), dtype)
        fields = read_fields(path, kind, how)
        # Labels follow their points through every selection: here they are numbers of rows.
        rows = np.arange(len(next(iter(fields.values()))))
        found = make_scan(fields, strength_field, rows)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    row = rows if found.label is None else np.asarray(found.label)
    strength, scale = found.strength, strength_scale
    if scale is None and strength is not None:
        scale = _guess_scale(strength, kind, path)
        strength = np.minimum(strength, np.float32(scale))
    normal = _normals(fields)
    return from_arrays(
        found.coord,
        strength,
        found.color,
        None if normal is None else normal[row],
        name=str(path),
        strength_scale=scale,
        row=row,
    )


def is_scene(folder: Path) -> bool:
    """Whether a folder holds a scene in the host's layout."""
    return (folder / "coord.npy").is_file()


def _read_folder(folder: Path, strength_scale: float | None) -> Scan:
    if not is_scene(folder):
        raise ValueError(f"{folder}: a folder without coord.npy, expected a scene folder or a file")
    arrays = {}
    for key in (*INPUTS, *SEGMENTS):
        file = folder / f"{key}.npy"
        if file.is_file():
            try:
                arrays[key] = np.load(file)
            except (ValueError, EOFError) as error:
                raise ValueError(f"{file}: cannot be read ({error})") from error
    label = next((arrays.pop(key) for key in SEGMENTS if key in arrays), None)
    named: Mapping[str, Any] = {key: arrays.get(key) for key in INPUTS}
    return from_arrays(**named, segment=label, name=str(folder), strength_scale=strength_scale)


def _guess_scale(strength: np.ndarray, kind: str, path: Path) -> float:
    """Divisor of a file's strengths; single huge ones, as some sensors have, decide nothing."""
    if kind == "nuscenes":
        return STRENGTH_OF_NUSCENES
    largest = float(np.quantile(strength, 1 - STRAY, method="lower"))
    scale = 1.0 if largest <= 1 else 255.0
    if largest > scale:
        raise ValueError(
            f"{path}: strengths up to {largest:g}, expected at most 1 or 255; give strength_scale, "
            "the strength of the strongest return, such as 65535"
        )
    if (high := float(strength.max())) > 1:
        above = np.count_nonzero(strength > scale)
        warn_counted(
            "strengths",
            f"{path}: strengths up to {high:g} are divided by {scale:g}, {above:,} above that count"
            " as 1; give strength_scale if they mean something else",
        )
    return scale


def _array(key: str, values: Any, name: str) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{key} of {name}: of type {array.dtype}, expected numbers")
    return array


def _rows(key: str, values: Any, coord: np.ndarray, columns: int, name: str) -> np.ndarray:
    """(N, columns) checked values of a key."""
    array = _array(key, values, name)
    if columns == 1 and array.shape == (len(coord),):
        array = array[:, None]
    if array.shape != (len(coord), columns):
        also = f" or ({len(coord)},)" if columns == 1 else ""
        raise ValueError(
            f"{key} of {name}: has shape {array.shape}, expected ({len(coord)}, {columns}){also}, "
            "a row for each point of coord"
        )
    _check_finite(key, array, name)
    return array


def _check_finite(key: str, array: np.ndarray, name: str) -> None:
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{key} of {name}: {np.count_nonzero(~finite):,} of {len(array):,} points have NaN or "
            f"infinite values, the first is row {int(finite.argmin())}: leave them out"
        )


def _as_bytes(color: np.ndarray, name: str) -> np.ndarray:
    low, high = color.min(), color.max()
    if low < 0 or high > 255 or (color.dtype.kind == "f" and 0 < high <= 1):
        hint = ": multiply by 255" if 0 <= low and high <= 1 else ""
        raise ValueError(
            f"color of {name}: {color.dtype} from {low:g} to {high:g}, expected 0 to 255{hint}"
        )
    return np.round(color).astype(np.uint8)


def _normals(fields: Fields) -> np.ndarray | None:
    """(N, 3) normals of a file, as stored."""
    for names in NORMALS:
        if all(name in fields for name in names):
            return np.stack([fields[name] for name in names], 1)
    return None
