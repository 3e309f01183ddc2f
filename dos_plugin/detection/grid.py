"""The grid of a detector: anchored at its range, so that a pooled voxel is a cell seen from above.

The hosts' ``GridSample`` starts its grid at the smallest coordinate of each scene, which would
shift features against boxes by another amount in every scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Merge = Literal["first", "mean"]


@dataclass(frozen=True)
class DetectionGrid:
    """Cells of a backbone's input and of the features that a detector takes.

    Attributes:
        point_cloud_range: x, y, z of the lower and of the upper corner, metres.
        grid_size: edge of a voxel of the input, metres; that of the pretraining.
        stride: voxels along the edge of a cell seen from above.
        z_bins: bins that the height is cut into, None for one every ``stride`` voxels.

    Raises:
        ValueError: if the range is none, or does not hold a whole number of cells along an axis.
    """

    point_cloud_range: Sequence[float]
    grid_size: float
    stride: int
    z_bins: int | None = None

    def __post_init__(self) -> None:
        corners = tuple(float(value) for value in self.point_cloud_range)
        if len(corners) != 6 or any(a >= b for a, b in zip(corners[:3], corners[3:])):
            raise ValueError(
                "point_cloud_range: expected x, y, z of the lower and then of the upper corner in "
                f"metres, got {tuple(self.point_cloud_range)}"
            )
        if self.grid_size <= 0 or self.stride < 1:
            raise ValueError(
                "grid_size and stride: expected metres above 0 and a whole number from 1, got "
                f"{self.grid_size} and {self.stride}"
            )
        object.__setattr__(self, "point_cloud_range", corners)
        cell = self.grid_size * self.stride
        for axis, low, high in zip("xyz", corners[:3], corners[3:]):
            cells = (high - low) / cell
            if round(cells) < 1 or abs(cells - round(cells)) > 1e-4:
                raise ValueError(
                    f"point_cloud_range: {axis} from {low} to {high} m holds {cells:.4f} cells of "
                    f"grid_size * stride = {self.grid_size} * {self.stride} = {cell:g} m, expected "
                    "a whole number of them"
                )
        depth = self.shape[2] // self.stride
        if self.z_bins is not None and (self.z_bins < 1 or depth % self.z_bins):
            raise ValueError(
                f"z_bins: {self.z_bins} does not divide the {depth} cells of {cell:g} m that "
                "point_cloud_range has in z"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""
        x, y, z = (
            round((high - low) / (self.grid_size * self.stride)) * self.stride
            for low, high in zip(self.point_cloud_range[:3], self.point_cloud_range[3:])
        )
        return x, y, z

    @property
    def bev_shape(self) -> tuple[int, int, int]:
        """Bins in z, cells along y, cells along x."""
        x, y, z = (voxels // self.stride for voxels in self.shape)
        return self.z_bins or z, y, x

    def cells(self, coord: Tensor) -> tuple[Tensor, Tensor]:
        """Voxels of points.

        Args:
            coord: (N, 3) x, y, z, metres.

        Returns:
            (N, 3) int64 voxels, and (N,) whether a point lies in the range; the voxel of one that
            does not, or is not finite, means nothing.
        """
        low = torch.tensor(self.point_cloud_range[:3], dtype=torch.float64, device=coord.device)
        # float64: a float32 quotient puts points near a face into the wrong voxel
        place = torch.floor((coord.double() - low) / self.grid_size)
        shape = torch.tensor(self.shape, device=coord.device)
        inside = ((place >= 0) & (place < shape)).all(dim=1)
        return torch.where(inside[:, None], place, 0).long(), inside

    def centres(self, cells: Tensor) -> Tensor:
        """Middle of voxels (N, 3), float32 metres."""
        low = torch.tensor(self.point_cloud_range[:3], dtype=torch.float64, device=cells.device)
        return (low + (cells + 0.5) * self.grid_size).float()


class Voxels(NamedTuple):
    """One row a voxel, sorted by x, y, z."""

    points: Tensor  # (M, C)
    cells: Tensor  # (M, 3) int64: x, y, z
    dropped: Tensor  # () int64: points outside the range or not finite


def voxelize(points: Tensor, grid: DetectionGrid, merge: Merge = "first") -> Voxels:
    """Points of one scan to one row a voxel; the same points always give the same rows.

    Args:
        points: (N, C) columns x, y, z in metres and whatever else.
        grid: where the voxels are.
        merge: "first" keeps the first point of a voxel as the points come, which is a random one
            where they were shuffled, as the pretraining's GridSample has it; "mean" averages.

    Raises:
        ValueError: for another ``merge``.
    """
    if merge not in get_args(Merge):
        raise ValueError(f"merge: expected one of {get_args(Merge)}, got {merge!r}")
    cells, inside = grid.cells(points[:, :3])
    points, cells = points[inside], cells[inside]
    _, y, z = grid.shape
    key = (cells[:, 0] * y + cells[:, 1]) * z + cells[:, 2]
    key, order = torch.sort(key, stable=True)
    voxel, counts = torch.unique_consecutive(key, return_counts=True)
    first = order[counts.cumsum(0) - counts]
    if merge == "first":
        rows = points[first]
    else:
        row = torch.arange(len(voxel), device=key.device).repeat_interleave(counts)
        total = points.new_zeros(len(voxel), points.shape[1], dtype=torch.float64)
        total.index_add_(0, row, points[order].double())
        rows = (total / counts[:, None]).to(points.dtype)
    return Voxels(rows, cells[first], (~inside).sum())
