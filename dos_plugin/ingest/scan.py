"""A scan as the host stores it, out of the columns of a file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .fields import Fields, find, pick
from .flat import FARTHEST

STRENGTHS = (
    *("strength", "intensity", "intensities", "reflectivity", "reflectance", "remission"),
    *("rssi", "i"),
)
COLORS = (("red", "green", "blue"), ("r", "g", "b"))
NEGATIVE = ("zero", "drop")  # what becomes of points with a negative strength
STRAY = 0.01  # share of strengths below 0, other than -1, that a good scan may have
CELLS = 65_535  # along an axis: PTv3 orders voxels by 16 bits, https://arxiv.org/abs/2312.10035
GRID_SIZE = 0.05  # metres, of the outdoor configs
PACKED = ("rgb", "rgba")  # of .pcd files: three bytes in a uint32, often stored as a float32


@dataclass
class Scan:
    """Points of a scan.

    Attributes:
        coord: (N, 3) float32, metres.
        strength: (N, 1) float32, 0 or more, as stored; None if there is none.
        color: (N, 3) uint8, or None.
        label: (N,) as stored, or None.
        dropped: number of points left out because of NaN or infinite values.
        used: which columns were taken.
        zeros: number of points left out because they are missing returns, stored as (0, 0, 0).
        negative: number of points with a negative strength, which is set to 0, or left out.
        far: number of points left out because they are too far away.
        read: number of points of the file.
    """

    coord: np.ndarray
    strength: np.ndarray | None
    color: np.ndarray | None
    label: np.ndarray | None
    dropped: int
    used: str
    zeros: int = 0
    negative: int = 0
    far: int = 0
    read: int = 0


def extent_of(coord: np.ndarray) -> float:
    """Longest edge of the box around points (N, 3), metres."""
    return float(max(np.ptp(axis) for axis in coord.T))


def longest(grid_size: float = GRID_SIZE) -> float:
    """Largest extent of a scan that PTv3 can tell apart in voxels of a grid size, both metres."""
    return CELLS * grid_size


def tell_long(extent: float, grid_size: float = GRID_SIZE) -> str:
    """What a scan longer than :func:`longest` means."""
    return (
        f"{extent:,.0f} m long, more than the {longest(grid_size):,.0f} m that PTv3 can tell apart "
        f"in voxels of {grid_size:g} m: ingest drops far points by --max-range and cuts maps by "
        "--tile"
    )


def make_scan(
    fields: Fields,
    strength_field: str | None = None,
    label: np.ndarray | None = None,
    *,
    keep_zeros: bool = False,
    negative: str = "zero",
    max_range: float | None = None,
) -> Scan:
    """Pick and check the columns of a scan.

    Args:
        fields: from :func:`~.readers.read_fields`.
        strength_field: column of strengths, ``none`` for no strength; None looks for one.
        label: (N,) labels of all points of the file, those of points without a return of any kind.
        keep_zeros: keep points at (0, 0, 0).
        negative: ``zero`` sets negative strengths, which stand for none, to 0; ``drop`` leaves
            their points out.
        max_range: leave out points that are farther from the origin, metres; None: none.

    Raises:
        ValueError: a column is missing, or its values cannot be what they should be.
    """
    axes = [_metres(pick(fields, axis)) for axis in "xyz"]
    count = len(axes[0])
    if label is not None and len(label) != count:
        raise ValueError(f"{len(label):,} labels for {count:,} points")
    name = _strength_name(fields, strength_field)
    strength = None if name is None else pick(fields, name).astype(np.float32)
    color, color_name = _color(fields)
    # Column by column: numpy is slow along an axis of three.
    finite = np.ones(count, bool)
    for column in (*axes, *([] if strength is None else [strength]), *color):
        finite &= np.isfinite(column)
    if not finite.any():
        raise ValueError(f"no point with finite values among {count:,}")
    zero = np.zeros_like(finite)
    if not keep_zeros:
        zero = (axes[0] == 0) & (axes[1] == 0) & (axes[2] == 0) & finite
    good = finite & ~zero
    if not good.any():
        raise ValueError(f"no point but {zero.sum():,} at (0, 0, 0): see --keep-zeros")
    far = np.zeros_like(finite)
    if max_range is not None:
        far = good & (sum(axis.astype(np.float64) ** 2 for axis in axes) > max_range**2)
        good &= ~far
        if not good.any():
            raise ValueError(f"no point within --max-range {max_range:g} m")
    _check_range(axes, good)
    below = np.zeros_like(finite)
    if strength is not None:
        below = good & (strength < 0)
        _check_negative(strength[below], good.sum())
        strength = np.maximum(strength, 0)
        if negative == "drop":
            good &= ~below
    used = f"strength from {name!r}" if name else "no strength"
    return Scan(
        coord=np.stack([axis[good].astype(np.float32) for axis in axes], 1),
        strength=None if strength is None else strength[good, None],
        color=_as_bytes(np.stack([column[good] for column in color], 1)) if color else None,
        label=None if label is None else label[good],
        dropped=int((~finite).sum()),
        used=used + (f", colour from {color_name}" if color_name else ""),
        zeros=int(zero.sum()),
        negative=int(below.sum()),
        far=int(far.sum()),
        read=count,
    )


def _metres(values: np.ndarray) -> np.ndarray:
    wide = values.dtype.kind == "f" and values.dtype.itemsize >= 4
    return np.ascontiguousarray(values) if wide else values.astype(np.float64)


def _check_range(axes: Sequence[np.ndarray], good: np.ndarray) -> None:
    farthest = max(np.abs(axis).max(where=good, initial=0) for axis in axes)
    if farthest > FARTHEST:
        beyond = sum((np.abs(axis) > FARTHEST) & good for axis in axes) > 0
        raise ValueError(
            f"a coordinate of {farthest:.3g} m, expected at most {FARTHEST:g} "
            f"({beyond.sum():,} of {good.sum():,} points are beyond): other units, an offset to "
            "subtract, or a file of another layout? --max-range leaves out single far points"
        )


def _check_negative(values: np.ndarray, count: int) -> None:
    other = values[values != -1]  # -1 stands for none in many files
    if len(other) > STRAY * count or len(values) == count:
        raise ValueError(
            f"a strength of {values.min():.3g}, and {len(values):,} of {count:,} below 0, expected "
            "0 or more: of another layout?"
        )


def _strength_name(fields: Fields, wanted: str | None) -> str | None:
    if wanted is not None:
        return None if wanted == "none" else find(fields, wanted) or wanted
    for name in STRENGTHS:
        if (found := find(fields, name)) is not None:
            return found
    columns = [name for name in fields if name.isdigit()]
    if len(columns) > 2:
        raise ValueError(
            f"{len(fields)} columns without names: say which has the strengths "
            "(--strength-field 3), or none (--strength-field none), or name all (--columns)"
        )
    return columns[0] if columns else None


def _color(fields: Fields) -> tuple[list[np.ndarray], str]:
    """Columns of red, green and blue as stored, none if there are none, and their names."""
    for names in COLORS:
        found = [find(fields, name) for name in names]
        if all(name is not None for name in found):
            return [fields[str(name)] for name in found], " ".join(names)
    for name in PACKED:
        if (key := find(fields, name)) is not None and fields[key].dtype.itemsize == 4:
            native = fields[key].astype(fields[key].dtype.newbyteorder("="))
            bits = native.view(np.uint32)
            return [bits >> shift & 255 for shift in (16, 8, 0)], name
    return [], ""


def _as_bytes(color: np.ndarray) -> np.ndarray:
    """Colours as uint8, from [0, 255], float [0, 1] or 16 bits.

    Raises:
        ValueError: they are in another range.
    """
    if color.dtype == np.uint16 and color.max() > 255:
        color = color >> 8
    elif color.dtype.kind == "f" and color.max() <= 1:
        color = color * 255
    if color.min() < 0 or color.max() > 255:
        raise ValueError(
            f"colours from {color.min():g} to {color.max():g}, expected [0, 255] or [0, 1]"
        )
    return np.round(color).astype(np.uint8)
