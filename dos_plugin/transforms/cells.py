"""The voxels of a view: what the host's GridSample does for it, without its hashing and sorting."""

from collections.abc import Mapping

import numpy as np

from dos_plugin.host import HOST
from dos_plugin.method.options import check_number

_KNOWN = {"type", "grid_size", "hash_type", "mode", "return_grid_coord"}
_SCATTER = 0x9E3779B97F4A7C15  # odd, hence a permutation of the numbers below any power of two


def is_view_grid_sample(config: Mapping) -> bool:
    """Whether a transform's config is a GridSample that :class:`ViewGridSample` can stand for."""
    return (
        config.get("type") == "GridSample"
        and config.get("mode", "train") == "train"
        and config.get("return_grid_coord") is True
        and isinstance(config.get("grid_size"), int | float)
        and set(config) <= _KNOWN
    )


class ViewGridSample:
    """Keep one random point of each voxel and add ``grid_coord`` (M, 3) int64.

    Cells, grid coordinates and the chance of every point are those of the host's GridSample, and
    the rows come in a scattered order as there, but it is another one. One sort of integers that
    hold cell and row does what takes the host a hash, an argsort and a second sort.

    Args:
        config: Config of the host's transform. It does the work itself where cell and row do not
            fit an integer: for extents beyond those of any scan, and values that are not finite.
    """

    def __init__(self, config: Mapping):
        check_number("TwoViews: grid_size of view_transform", config["grid_size"], "(0, inf)")
        self.host_transform = HOST.TRANSFORMS.build(dict(config))
        self.grid_size = np.float64(config["grid_size"])

    def __call__(self, view: dict) -> dict:
        if len(view["coord"]) == 0:
            return self.host_transform(view)
        # Axis by axis: numpy is slow to reduce over the long axis of (n, 3).
        cell = np.floor(np.divide(view["coord"].T, self.grid_size, order="C"))
        row_bits = cell.shape[1].bit_length()
        cell -= cell.min(axis=1, keepdims=True)
        sizes = cell.max(axis=1) + 1
        if not np.prod(sizes) < 2.0 ** (64 - row_bits):  # also where it is NaN
            return self.host_transform(view)
        cell = cell.astype(np.int64)
        rows = _one_of_each(_position(cell, sizes), row_bits)
        keys = [key for key in view["index_valid_keys"] if key != "grid_coord"]
        for key in keys:
            if key in view:
                view[key] = view[key].take(rows, axis=0)
        view["grid_coord"] = np.ascontiguousarray(cell.take(rows, axis=1).T)
        view["index_valid_keys"] = [*keys, "grid_coord"]
        return view


def _position(cell: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Position (n,) of cells (3, n) in the dense grid of these sizes."""
    return (cell[0] * int(sizes[1]) + cell[1]) * int(sizes[2]) + cell[2]


def _one_of_each(position: np.ndarray, row_bits: int) -> np.ndarray:
    """A random row of each distinct position; needs ``position < 2 ** (64 - row_bits)``."""
    # Scattered, since neighbours in space that are neighbours in memory would let "the first point
    # of a coarser cell" mean the lowest one.
    scattered = position.astype(np.uint64) * np.uint64(_SCATTER) << np.uint64(row_bits)
    packed = scattered | np.arange(len(position), dtype=np.uint64)
    packed.sort()
    changes = np.diff(packed >> np.uint64(row_bits)) != 0
    first = np.concatenate([[0], np.flatnonzero(changes) + 1])
    count = np.diff(first, append=len(packed))
    chosen = first + (np.random.random(len(first)) * count).astype(np.int64)
    return (packed[chosen] & np.uint64(2**row_bits - 1)).astype(np.int64)
