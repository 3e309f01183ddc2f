"""Block masking of views (DOS, section 2, step 1), numpy, in the data-loader workers."""

from collections.abc import Sequence

import numpy as np

from dos_plugin.messages import warn_counted
from dos_plugin.method.options import check_names, check_number, check_whole

# A view with at most so many places for blocks to each point is counted in a table of them all.
_DENSE = 16
_MOST_PLACES = 2.0**62


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
        ValueError: If an argument is out of range; or coordinates are not (N, 3), are none, or
            are not finite.
        KeyError: If a view is missing in a sample.
        TypeError: If coordinates are not floats.
    """

    def __init__(
        self,
        block_size: float = 1.0,
        mask_ratio: float = 0.7,
        min_visible: int = 64,
        views: Sequence[str] = ("view1", "view2"),
    ):
        check_number("BlockMask: block_size", block_size, "(0, inf)")
        check_number("BlockMask: mask_ratio", mask_ratio, "[0, 1)")
        check_whole("BlockMask: min_visible", min_visible, 1)
        check_names("BlockMask: views", views)
        self.block_size = block_size
        self.mask_ratio = mask_ratio
        self.min_visible = min_visible
        self.views = tuple(views)

    def __call__(self, data: dict) -> dict:
        for view in self.views:
            if f"{view}_coord" not in data:
                raise KeyError(
                    f"BlockMask: no '{view}_coord' in the sample, for views={self.views}; it comes "
                    "after TwoViews and before ToTensor"
                )
            coord = data[f"{view}_coord"]
            if not isinstance(coord, np.ndarray) or coord.ndim != 2 or coord.shape[1] != 3:
                shape = getattr(coord, "shape", type(coord).__name__)
                raise ValueError(f"BlockMask: '{view}_coord' must be an array (N, 3), got {shape}")
            if coord.dtype.kind != "f":
                raise TypeError(f"BlockMask: '{view}_coord' must be floats, got {coord.dtype}")
            if not len(coord) or not np.isfinite(coord).all():
                fault = "NaN or infinite values" if len(coord) else "no point"
                raise ValueError(f"BlockMask: '{view}_coord' has {fault}")
            data[f"{view}_visible"] = self.visible(coord)
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
        axes = np.floor(axes / self.block_size)
        shape = axes.max(axis=1) + 1
        places = np.prod(shape)
        if not places < _MOST_PLACES:  # no integer numbers them
            _, block, count = np.unique(axes, axis=1, return_inverse=True, return_counts=True)
            return block.reshape(-1), count
        x, y, z = axes.astype(np.int64)
        position = (x * int(shape[1]) + y) * int(shape[2]) + z
        if places > _DENSE * len(coord):
            _, block, count = np.unique(position, return_inverse=True, return_counts=True)
            return block, count
        count = np.bincount(position)
        occupied = np.flatnonzero(count)
        number = np.empty(len(count), dtype=np.int64)
        number[occupied] = np.arange(len(occupied))
        return number[position], count[occupied]
