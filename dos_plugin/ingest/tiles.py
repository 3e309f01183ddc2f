"""Maps cut into scenes of a sensor's range."""

import math
from collections.abc import Iterator

import numpy as np

from .fields import Fields, find, pick

GROUND_CLASS = 2  # https://www.asprs.org/divisions-committees/lidar-division: LAS classes
LARGEST = 1e7  # metres; the longest way on Earth is twice that
LOW = 5.0  # percent of the points of a map that lie about as low as its ground
ENOUGH = 100  # classified points, or such low ones, that tell a tile's ground from the map's


def cut(fields: Fields, edge: float, overlap: float) -> Iterator[tuple[str, Fields]]:
    """Square tiles of a map: name, and columns of the points in it.

    A tile has its own origin: in the middle in x and y, and on its ground in z, or on that of the
    map where a tile shows too little of it. So the ground has the same z in all of them. Tiles
    without a point are left out. The last of a row may be partly empty.

    Args:
        fields: with x, y, z, metres.
        edge: of a tile, metres.
        overlap: of neighbours, metres, less than ``edge``.
    """
    xy = np.stack([pick(fields, axis).astype(np.float64) for axis in "xy"], 1)
    finite = np.isfinite(xy).all(1)
    if not finite.any():
        raise ValueError(f"no point with finite values among {len(xy):,}")
    low, high = xy[finite].min(0), xy[finite].max(0)
    step = edge - overlap
    ground = ground_level(fields)
    if (size := (high - low).max()) > LARGEST:
        raise ValueError(
            f"a map of {size:.3g} m, expected at most {LARGEST:g}: other units, or single points "
            "that have to be removed?"
        )
    counts = [max(1, math.ceil((size - overlap) / step)) for size in high - low]
    for i in _occupied(xy[finite, 0] - low[0], edge, step, counts[0]):
        column = np.flatnonzero(_within(xy[:, 0] - low[0] - i * step, edge, i == counts[0] - 1))
        rows = xy[column, 1]
        for j in _occupied(rows[np.isfinite(rows)] - low[1], edge, step, counts[1]):
            inside = _within(rows - low[1] - j * step, edge, j == counts[1] - 1)
            if inside.any():
                middle = low + [i * step + edge / 2, j * step + edge / 2]
                yield f"x{i}-y{j}", _tile(fields, column[inside], middle, ground)


def _occupied(values: np.ndarray, edge: float, step: float, count: int) -> list[int]:
    """Numbers of the tiles along an axis that may hold one of the values, from 0, rising."""
    last = np.unique(np.minimum(values // step, count - 1).astype(np.int64))
    near = {int(tile) - back for tile in last for back in range(math.ceil(edge / step) + 1)}
    return sorted(tile for tile in near if tile >= 0)


def _within(values: np.ndarray, edge: float, last: bool) -> np.ndarray:
    return (values >= 0) & ((values <= edge) if last else (values < edge))


def _tile(fields: Fields, points: np.ndarray, middle: np.ndarray, ground: float) -> Fields:
    tile = {name: values[points] for name, values in fields.items()}
    for axis, origin in zip("xyz", (*middle, ground_level(tile, ENOUGH, ground))):
        name = find(tile, axis) or axis
        tile[name] = tile[name].astype(np.float64) - origin
    return tile


def ground_level(fields: Fields, enough: int = 1, default: float = 0.0) -> float:
    """Height of the ground, metres: of the points classified so, else of the lowest ones.

    Args:
        fields: with z, and perhaps classification.
        enough: number of such points that are trusted.
        default: height if there are fewer.
    """
    z = pick(fields, "z")
    name = find(fields, "classification")
    ground = z[fields[name] == GROUND_CLASS] if name else z[:0]
    if len(ground) >= enough:
        return float(np.median(ground))
    if len(z) * LOW / 100 >= enough and not len(ground):
        return float(np.nanpercentile(z, LOW))
    return default
