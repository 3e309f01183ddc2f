"""A large scan in parts that are encoded one after another, each with some of its surroundings."""

from collections.abc import Iterator

import numpy as np

# Voxels within so many cells of a part are encoded with it and their features dropped: most of
# what a voxel sees lies nearer.
MARGIN = 32
# Parts begin at multiples of this, so that poolings by 2, up to six, join the same voxels.
ALIGNED = 64


def cut(grid_coord: np.ndarray, limit: int) -> list[np.ndarray]:
    """Rows of voxels in parts of at most ``limit``, halved along the longer side again and again.

    Args:
        grid_coord: (V, 3) cells.
        limit: at least 1.
    """
    todo, done = [np.arange(len(grid_coord))], []
    while todo:
        rows = todo.pop()
        if len(rows) <= limit:
            done.append(rows)
            continue
        cell = grid_coord[rows]
        axis = int(np.ptp(cell, axis=0).argmax())
        rows = rows[np.argsort(cell[:, axis], kind="stable")]
        todo += [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return done


def parts(grid_coord: np.ndarray, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Passes over a scan of at most ``limit`` voxels each; a single one if it has no more.

    Args:
        grid_coord: (V, 3) cells.
        limit: at least 2.

    Yields:
        the rows of a pass, rising, and which of these are the part itself, a mask; every voxel is
        in one part.
    """
    if len(grid_coord) <= limit:
        yield np.arange(len(grid_coord)), np.ones(len(grid_coord), dtype=bool)
        return
    for part in cut(grid_coord, limit // 2):
        cell = grid_coord[part]
        low, high = cell.min(axis=0), cell.max(axis=0)
        distance = np.maximum(low - grid_coord, grid_coord - high).max(axis=1).clip(0)
        distance[part] = -1  # before the others of its box
        order = np.argsort(distance, kind="stable")[:limit]
        rows = np.sort(order[distance[order] <= MARGIN])
        yield rows, distance[rows] < 0
