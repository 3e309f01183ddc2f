"""Features of a scan: of its points and voxels, as colours, and how much alike they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dos_plugin.drawing.render import component_basis, value_colours
from dos_plugin.encoder.scan import Scan


@dataclass(frozen=True, repr=False, eq=False)
class Features:
    """Features of a scan of N points in V voxels. C channels; all on the CPU.

    Attributes:
        scan: the points.
        per_voxel: (V, C) float32.
        voxel_coord: (V, 3) float32, metres: the point that stands for the voxel, in the frame of
            the scan.
        voxel: (N,) int64 voxel of every point.
        grid_size: edge of a voxel, metres.
    """

    scan: Scan
    per_voxel: Tensor
    voxel_coord: Tensor
    voxel: Tensor
    grid_size: float

    @property
    def per_point(self) -> Tensor:
        """(N, C) float32; made anew at each call: points of a voxel have the same features."""
        return self.per_voxel[self.voxel]

    def colors(self, like: Features | None = None) -> np.ndarray:
        """(N, 3) uint8: the first three principal components as red, green and blue.

        Channels are standardised; each component is stretched over its 1 to 99 % range.

        Args:
            like: features whose components and ranges are taken, so that a colour means the same
                in both; None takes their own.

        Raises:
            ValueError: the other ones have another number of channels.
        """
        like = self if like is None else like
        self._check_channels(like, "like")
        basis = component_basis(like.per_voxel.numpy())
        reference = basis.values(like.per_voxel.numpy())
        own = reference if like is self else basis.values(self.per_voxel.numpy())
        return value_colours(own, reference)[self.voxel.numpy()]

    def similar_to(self, index: int, of: Features | None = None) -> np.ndarray:
        """(N,) float32: cosine of the features of every point with those of one point, -1 to 1.

        Args:
            index: number of that point.
            of: features of the scan that holds that point; None is this one.

        Raises:
            ValueError: there is no such point, or the other features have another number of
                channels.
        """
        of = self if of is None else of
        self._check_channels(of, "of")
        if not 0 <= index < len(of.scan):
            raise ValueError(
                f"index: {index}, but {of.scan.name} has {len(of.scan):,} points, from 0"
            )
        one = of.per_voxel[of.voxel[index]]
        cosine = torch.nn.functional.cosine_similarity(self.per_voxel, one[None], dim=1)
        return cosine.clamp(-1, 1)[self.voxel].numpy()

    def __len__(self) -> int:
        return len(self.scan)

    def __repr__(self) -> str:
        voxels, channels = self.per_voxel.shape
        return (
            f"Features({self.scan.name}: {len(self):,} points in {voxels:,} voxels of "
            f"{self.grid_size:g} m, {channels} channels)"
        )

    def _check_channels(self, other: Features, name: str) -> None:
        own, others = self.per_voxel.shape[1], other.per_voxel.shape[1]
        if own != others:
            raise ValueError(
                f"{name}: features of {others} channels, expected {own}, those of the same encoder"
            )
