"""Maps cut into scenes of a sensor's range."""

import math
from collections.abc import Iterator

import numpy as np

from .fields import Fields, find, pick

GROUND_CLASS = 2  # https://www.asprs.org/divisions-committees/lidar-division: LAS classes
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
    counts = [max(1, math.ceil((size - overlap) / step)) for size in high - low]
    for i in range(counts[0]):
        column = np.flatnonzero(_within(xy[:, 0] - low[0] - i * step, edge, i == counts[0] - 1))
        for j in range(counts[1]):
            inside = _within(xy[column, 1] - low[1] - j * step, edge, j == counts[1] - 1)
            if inside.any():
                middle = low + [i * step + edge / 2, j * step + edge / 2]
                yield f"x{i}-y{j}", _tile(fields, column[inside], middle, ground)


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
