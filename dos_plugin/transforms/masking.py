"""Block masking of views (DOS, section 2, step 1), numpy, in the data-loader workers."""

from collections.abc import Sequence

import numpy as np

from dos_plugin.messages import warn_counted

# A view with at most so many places for blocks to each point is counted in a table of them all.
_DENSE = 16


class BlockMask:
    """Mask whole cubes of each view: adds ``<view>_visible`` (n,) bool.

    The cubes form a grid with a random origin. ``floor(mask_ratio * cubes)`` of them are masked,
    drawn without replacement, but at least one stays visible; then masked cubes are made visible
    again, in random order, until ``min_visible`` points are (or the whole view is).

    Args:
        block_size: Edge of a cube, metres (paper: 0.4 indoor, 1.0 outdoor).
        mask_ratio: Share of masked cubes, in [0, 1) (paper: 0.7 segmentation, 0.6 detection).
        min_visible: Least number of visible points of a view.
        views: Prefixes of the views.

    Raises:
        ValueError: If an argument is out of range.
        KeyError: If a view is missing in a sample.
    """

    def __init__(
        self,
        block_size: float = 1.0,
        mask_ratio: float = 0.7,
        min_visible: int = 64,
        views: Sequence[str] = ("view1", "view2"),
    ):
        if not (np.isfinite(block_size) and block_size > 0):
            raise ValueError(f"BlockMask: block_size must be > 0 metres, got {block_size}")
        if not 0 <= mask_ratio < 1:
            raise ValueError(f"BlockMask: mask_ratio must be in [0, 1), got {mask_ratio}")
        if min_visible < 1:
            raise ValueError(f"BlockMask: min_visible must be at least 1, got {min_visible}")
        self.block_size = block_size
        self.mask_ratio = mask_ratio
        self.min_visible = min_visible
        self.views = tuple(views)

    def __call__(self, data: dict) -> dict:
        for view in self.views:
            if f"{view}_coord" not in data:
                raise KeyError(
                    f"BlockMask: no '{view}_coord' in the sample; it comes after TwoViews and "
                    "before ToTensor"
                )
            data[f"{view}_visible"] = self.visible(data[f"{view}_coord"])
        return data

    def visible(self, coord: np.ndarray) -> np.ndarray:
        """Draw a mask: (n,) bool, True where a point of ``coord`` (n, 3) stays visible."""
        block, count = self._blocks(coord)
        if len(count) == 1 and self.mask_ratio > 0:
            warn_counted(
                "views of one block",
                f"BlockMask: a view of {len(coord)} points lies in one block of "
                f"{self.block_size} m, nothing is masked",
            )
        order = np.random.permutation(len(count))  # the head is masked, the tail visible
        masked = min(int(self.mask_ratio * len(count)), len(count) - 1)
        hidden = np.cumsum(count[order])  # points hidden if that many of the head were masked
        masked = min(masked, int(np.searchsorted(hidden, len(coord) - self.min_visible, "right")))
        keep = np.ones(len(count), dtype=bool)
        keep[order[:masked]] = False
        return keep[block]

    def _blocks(self, coord: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number (n,) of every point's block and number of points of every block."""
        # Axis by axis: numpy is slow to reduce over the long axis of (n, 3).
        axes = np.array(coord.T, dtype=np.float64, order="C")
        axes -= axes.min(axis=1, keepdims=True) - np.random.uniform(0, self.block_size, (3, 1))
        x, y, z = (axes / self.block_size).astype(np.int64)
        shape = x.max() + 1, y.max() + 1, z.max() + 1
        position = (x * shape[1] + y) * shape[2] + z
        if np.prod(shape, dtype=np.float64) > _DENSE * len(coord):
            _, block, count = np.unique(position, return_inverse=True, return_counts=True)
            return block, count
        count = np.bincount(position)
        occupied = np.flatnonzero(count)
        number = np.empty(len(count), dtype=np.int64)
        number[occupied] = np.arange(len(occupied))
        return number[position], count[occupied]
