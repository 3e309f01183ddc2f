"""A scan as the host stores it, out of the columns of a file."""

from dataclasses import dataclass

import numpy as np

from .readers import Fields

FARTHEST = 10_000.0  # metres; other units, map coordinates and other layouts soon show larger ones
STRENGTHS = ("strength", "intensity", "intensities", "reflectivity", "reflectance", "i")
COLORS = (("red", "green", "blue"), ("r", "g", "b"))
PACKED = ("rgb", "rgba")  # of .pcd files: three bytes in a uint32, often stored as a float32


@dataclass
class Scan:
    """Points of a scan.

    Attributes:
        coord: (N, 3) float32, metres.
        strength: (N, 1) float32, 0 or more, as stored; None if there is none.
        color: (N, 3) uint8, or None.
        label: (N,) integers as stored, or None.
        dropped: number of points left out because of NaN or infinite values.
        used: which columns were taken.
    """

    coord: np.ndarray
    strength: np.ndarray | None
    color: np.ndarray | None
    label: np.ndarray | None
    dropped: int
    used: str


def make_scan(
    fields: Fields, strength_field: str | None = None, label: np.ndarray | None = None
) -> Scan:
    """Pick and check the columns of a scan.

    Args:
        fields: from :func:`~.readers.read_fields`.
        strength_field: column of strengths, ``none`` for no strength; None looks for one.
        label: (N,) labels of all points of the file.

    Raises:
        ValueError: a column is missing, or its values cannot be what they should be.
    """
    coord = np.stack([_pick(fields, axis) for axis in "xyz"], 1).astype(np.float64)
    if label is not None and len(label) != len(coord):
        raise ValueError(f"{len(label):,} labels for {len(coord):,} points")
    name = _strength_name(fields, strength_field)
    strength = None if name is None else _pick(fields, name).astype(np.float32)[:, None]
    color, color_name = _color(fields)
    finite = np.isfinite(coord).all(1)
    for values in (strength, color):
        if values is not None:
            finite &= np.isfinite(values).all(1)
    if not finite.any():
        raise ValueError(f"no point with finite values among {len(coord):,}")
    coord = coord[finite]
    farthest = np.abs(coord).max()
    if farthest > FARTHEST:
        raise ValueError(
            f"a coordinate of {farthest:.3g} m, expected at most {FARTHEST:g}: other units, an "
            "offset to subtract, or a file of another layout?"
        )
    if strength is not None:
        strength = strength[finite]
        if strength.min() < 0:
            raise ValueError(
                f"a strength of {strength.min():.3g}, expected 0 or more: of another layout?"
            )
    used = f"strength from {name!r}" if name else "no strength"
    return Scan(
        coord=coord.astype(np.float32),
        strength=strength,
        color=None if color is None else _as_bytes(color[finite]),
        label=None if label is None else label[finite],
        dropped=int((~finite).sum()),
        used=used + (f", colour from {color_name}" if color_name else ""),
    )


def _plain(name: str) -> str:
    return name.lower().removeprefix("scalar_")  # CloudCompare's prefix


def _find(fields: Fields, name: str) -> str | None:
    if name in fields:
        return name
    return next((field for field in fields if _plain(field) == _plain(name)), None)


def _pick(fields: Fields, name: str) -> np.ndarray:
    found = _find(fields, name)
    if found is None:
        raise ValueError(f"no field {name!r}; there are {', '.join(fields)}")
    return fields[found]


def pick_label(fields: Fields, name: str) -> np.ndarray:
    """The column with the labels.

    Raises:
        ValueError: there is no such column.
    """
    return _pick(fields, name)


def _strength_name(fields: Fields, wanted: str | None) -> str | None:
    if wanted is not None:
        return None if wanted == "none" else _find(fields, wanted) or wanted
    for name in STRENGTHS:
        if (found := _find(fields, name)) is not None:
            return found
    columns = [name for name in fields if name.isdigit()]
    if len(columns) > 2:
        raise ValueError(
            f"{len(fields)} columns without names: say which has the strengths "
            "(--strength-field 3), or none (--strength-field none)"
        )
    return columns[0] if columns else None


def _color(fields: Fields) -> tuple[np.ndarray | None, str]:
    """Colours (N, 3) as stored, and the names of their columns."""
    for names in COLORS:
        found = [_find(fields, name) for name in names]
        if all(name is not None for name in found):
            return np.stack([fields[str(name)] for name in found], 1), " ".join(names)
    for name in PACKED:
        if (key := _find(fields, name)) is not None and fields[key].dtype.itemsize == 4:
            bits = np.ascontiguousarray(fields[key]).view(np.uint32)
            return np.stack([bits >> shift & 255 for shift in (16, 8, 0)], 1), name
    return None, ""


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
