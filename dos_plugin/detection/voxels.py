"""Points as a host has them to voxels with the features of the pretraining."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dos_plugin.detection.grid import DetectionGrid, Merge, voxelize


class BatchVoxels(NamedTuple):
    """Voxels of a batch, sorted by scan."""

    features: Tensor  # (M, F) float32
    coors: Tensor  # (M, 4) int32: scan, z, y, x
    counts: list[int]  # of each scan
    dropped: Tensor  # (B,) int64: points outside the range or not finite


# Points of which one has a strength above 1 where strengths go to 255.
ENOUGH = 1000


def check_strength(low: float, high: float, scale: float, points: int, where: str) -> None:
    """Refuse the strength of a scan, brought to 0..1 by ``scale``, that is not there.

    Raises:
        ValueError: If it goes beyond, or in all of many points not beyond ``scale``: then it was 0
            to 1 before.
    """
    twice = scale < 0.1 and 0 < high <= 1.01 * scale and points >= ENOUGH
    if low < -0.01 or high > 1.01 or twice:
        raise ValueError(
            f"strength_scale={scale:g}: strength of {where} goes from {low:g} to {high:g}, "
            "expected 0 to 1 as in the pretraining: 1 / 255 is for 0 to 255, 1 for 0 to 1"
        )


class ScanVoxels:
    """One row a voxel, in plain PyTorch, without a limit to their number.

    Args:
        grid: Where the voxels are.
        columns: Names of the columns that the points have behind x, y, z.
        features: Features in the order of the pretraining: "coord" (x, y, z in metres), "height"
            (z) and names of columns. Those that the pretraining did not have come last.
        strength_scale: Brings the column "strength" to 0..1.
        merge: Which point of a voxel, see :func:`~dos_plugin.detection.grid.voxelize`.

    Raises:
        ValueError: For a feature that is no column.
    """

    def __init__(
        self,
        grid: DetectionGrid,
        columns: Sequence[str],
        features: Sequence[str],
        strength_scale: float,
        merge: Merge = "first",
    ) -> None:
        self.grid = grid
        self.merge: Merge = merge
        self.columns = tuple(columns)
        self.strength_scale = strength_scale
        places = dict(coord=[0, 1, 2], height=[2])
        places |= {name: [3 + index] for index, name in enumerate(self.columns)}
        unknown = [name for name in features if name not in places]
        if unknown:
            raise ValueError(
                f"features: {', '.join(unknown)} not among coord, height and the columns "
                f"{', '.join(columns)}"
            )
        self.index = [place for name in features for place in places[name]]
        self._strength_seen = False

    @torch.no_grad()
    def __call__(self, scans: Sequence[Tensor], name: Callable[[int], str]) -> BatchVoxels:
        """Voxels of a batch.

        Args:
            scans: Of each (N, 3 + columns).
            name: What a scan is called in messages, by its number.

        Raises:
            ValueError: For points of another width, and a first batch with a strength outside 0..1.
        """
        features, coors, counts, dropped = [], [], [], []
        for number, scan in enumerate(scans):
            width = 3 + len(self.columns)
            if scan.shape[1] != width:
                raise ValueError(
                    f"columns: x, y, z and {', '.join(self.columns)} are {width} columns, the "
                    f"points of {name(number)} have {scan.shape[1]}"
                )
            found = voxelize(self._scaled(scan, name, number), self.grid, self.merge)
            features.append(found.points[:, self.index])
            cells = found.cells[:, [2, 1, 0]].int()
            coors.append(torch.nn.functional.pad(cells, (1, 0), value=number))
            counts.append(len(cells))
            dropped.append(found.dropped)
        return BatchVoxels(torch.cat(features), torch.cat(coors), counts, torch.stack(dropped))

    def _scaled(self, scan: Tensor, name: Callable[[int], str], number: int) -> Tensor:
        if "strength" not in self.columns:
            return scan
        column = 3 + self.columns.index("strength")
        scale = scan.new_ones(scan.shape[1])
        scale[column] = self.strength_scale
        scan = scan * scale
        if not self._strength_seen and len(scan):  # once: a GPU waits for it
            low, high = scan[:, column].aminmax()
            check_strength(float(low), float(high), self.strength_scale, len(scan), name(number))
            self._strength_seen = True
        return scan
