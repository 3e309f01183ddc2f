"""Transforms that select or reorder points.

They index the keys listed in ``data_dict["index_valid_keys"]`` and no other: a further per-point
key has to be listed there (by ``Update``) before the first of these transforms.
"""

import random

import numpy as np

from ..registry import TRANSFORMS

INDEX_VALID_KEYS = ("coord", "color", "normal", "superpoint", "strength", "segment", "instance")


def select(data_dict: dict, index: np.ndarray) -> dict:
    """Index every key of ``index_valid_keys`` that the sample has.

    Raises:
        IndexError: If such a key has fewer rows than the index asks for; the key is named.
    """
    if "index_valid_keys" not in data_dict:
        data_dict["index_valid_keys"] = list(INDEX_VALID_KEYS)
    for key in data_dict["index_valid_keys"]:
        if key not in data_dict:
            continue
        try:
            data_dict[key] = data_dict[key][index]
        except (IndexError, TypeError) as error:
            raise IndexError(
                f"index_valid_keys: cannot select points of {key!r}: {error}"
            ) from error
    return data_dict


def fnv_hash(cells: np.ndarray) -> np.ndarray:
    """FNV-1 style 64-bit hash of integer rows (N, 3); overflow wraps on purpose."""
    cells = cells.astype(np.uint64)
    key = np.full(len(cells), 14695981039346656037, dtype=np.uint64)
    for column in cells.T:
        key *= np.uint64(1099511628211)
        key ^= column
    return key


def ravel_hash(cells: np.ndarray) -> np.ndarray:
    """Position of integer rows (N, 3), all >= 0, in the dense grid that holds them."""
    cells = (cells - cells.min(axis=0)).astype(np.uint64)
    size = cells.max(axis=0) + np.uint64(1)
    return (cells[:, 0] * size[1] + cells[:, 1]) * size[2] + cells[:, 2]


@TRANSFORMS.register_module()
class GridSample:
    """Keep one random point of each voxel of edge ``grid_size`` metres.

    Rows come out ordered by the hash of their voxel. Cells are counted from the lowest occupied
    one of *this* sample, so ``grid_coord`` starts at 0 in every axis.

    Args:
        grid_size: Edge of a voxel, metres (a scalar or one per axis).
        hash_type: "fnv", or anything else for the position in the dense grid.
        mode: "train"; "test" is left to the real host.
        return_inverse: Add ``inverse`` (N,): original row -> row of its voxel.
        return_grid_coord: Add ``grid_coord`` (M, 3), int64, and list it in ``index_valid_keys``.
        return_min_coord: Add ``min_coord`` (1, 3): corner of cell 0, metres.
        return_displacement: Add ``displacement`` of the point from its voxel's centre, in voxels.
        project_displacement: Project that onto ``normal``, shape (M, 1).
    """

    def __init__(
        self,
        grid_size: float = 0.05,
        hash_type: str = "fnv",
        mode: str = "train",
        return_inverse: bool = False,
        return_grid_coord: bool = False,
        return_min_coord: bool = False,
        return_displacement: bool = False,
        project_displacement: bool = False,
    ) -> None:
        if mode not in ("train", "test"):
            raise ValueError(f"mode must be 'train' or 'test', got {mode!r}")
        if mode == "test":
            raise NotImplementedError(
                "mode='test' is not part of the embedded host: use the real host"
            )
        if not np.all(np.asarray(grid_size) > 0):
            raise ValueError(f"grid_size must be positive, got {grid_size!r}")
        self.grid_size = np.asarray(grid_size, dtype=np.float64)
        self.hash = fnv_hash if hash_type == "fnv" else ravel_hash
        self.return_inverse = return_inverse
        self.return_grid_coord = return_grid_coord
        self.return_min_coord = return_min_coord
        self.return_displacement = return_displacement
        self.project_displacement = project_displacement

    def __call__(self, data_dict: dict) -> dict:
        coord = data_dict["coord"]
        if len(coord) == 0:
            raise ValueError(f"GridSample: coord of sample {data_dict.get('name', '?')!r} is empty")
        scaled = coord / self.grid_size
        if not np.isfinite(scaled).all():
            name = data_dict.get("name", "?")
            raise ValueError(f"GridSample: coord of sample {name!r} has NaN or infinite values")
        cells = np.floor(scaled).astype(np.int64)
        lowest = cells.min(axis=0)
        cells -= lowest

        key = self.hash(cells)
        order = np.argsort(key)
        first = np.flatnonzero(np.diff(key[order], prepend=~key[order[:1]]))
        count = np.diff(first, append=len(key))
        chosen = order[first + (np.random.random(len(first)) * count).astype(np.int64)]

        if self.return_displacement:
            displacement = scaled - lowest - cells - 0.5
            if self.project_displacement:
                displacement = (displacement * data_dict["normal"]).sum(axis=-1, keepdims=True)
        data_dict = select(data_dict, chosen)
        if self.return_inverse:
            inverse = np.empty(len(key), dtype=np.int64)
            inverse[order] = np.repeat(np.arange(len(first)), count)
            data_dict["inverse"] = inverse
        if self.return_grid_coord:
            self._add(data_dict, "grid_coord", cells[chosen])
        if self.return_min_coord:
            data_dict["min_coord"] = (lowest * self.grid_size).reshape(1, 3)
        if self.return_displacement:
            self._add(data_dict, "displacement", displacement[chosen])
        return data_dict

    @staticmethod
    def _add(data_dict: dict, key: str, value: np.ndarray) -> None:
        """Add a per-point key; the list of keys is replaced, since it may belong to the config."""
        data_dict[key] = value
        keys = list(data_dict["index_valid_keys"])
        data_dict["index_valid_keys"] = keys if key in keys else keys + [key]


@TRANSFORMS.register_module()
class SphereCrop:
    """Keep the ``point_max`` points (or ``sample_rate`` of all) nearest to a centre point.

    The centre is a random point, or the one in the middle of the rows for ``mode="center"``.
    """

    def __init__(
        self, point_max: int = 80000, sample_rate: float | None = None, mode: str = "random"
    ) -> None:
        if mode not in ("random", "center"):
            raise ValueError(
                f"mode must be 'random' or 'center' on the embedded host, got {mode!r}"
            )
        self.point_max = point_max
        self.sample_rate = sample_rate
        self.mode = mode

    def __call__(self, data_dict: dict) -> dict:
        coord = data_dict["coord"]
        count = len(coord)
        keep = self.point_max if self.sample_rate is None else int(self.sample_rate * count)
        if count > keep:
            row = np.random.randint(count) if self.mode == "random" else count // 2
            distance = np.square(coord - coord[row]).sum(axis=1)
            data_dict = select(data_dict, np.argsort(distance)[:keep])
        return data_dict


@TRANSFORMS.register_module()
class RandomDropout:
    """Drop ``dropout_ratio`` of the points, with probability ``dropout_application_ratio``."""

    def __init__(self, dropout_ratio: float = 0.2, dropout_application_ratio: float = 0.5) -> None:
        self.dropout_ratio = dropout_ratio
        self.dropout_application_ratio = dropout_application_ratio

    def __call__(self, data_dict: dict) -> dict:
        if random.random() < self.dropout_application_ratio:
            count = len(data_dict["coord"])
            keep = int(count * (1 - self.dropout_ratio))
            data_dict = select(data_dict, np.random.choice(count, keep, replace=False))
        return data_dict
