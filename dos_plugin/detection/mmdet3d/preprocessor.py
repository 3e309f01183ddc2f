"""Points of a scan to the voxels and features that the pretraining used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet3d.models.data_preprocessors import Det3DDataPreprocessor
from mmdet3d.registry import MODELS
from torch import Tensor

from dos_plugin.detection.grid import DetectionGrid, Merge
from dos_plugin.detection.voxels import ScanVoxels


@MODELS.register_module()
class DOSDet3DDataPreprocessor(Det3DDataPreprocessor):
    """The host's, with voxels in plain PyTorch: one point each, no limit to their number.

    Give ``HardSimpleVFE`` as many ``num_features`` as the features have columns; it passes them on.

    Args:
        point_cloud_range: As of the encoder, metres.
        grid_size: As of the encoder, metres.
        stride: As of the encoder.
        columns: Names of the columns that the points have behind x, y, z.
        features: Features in the order of the pretraining: "coord" (x, y, z in metres) and names
            of columns. Those that the pretraining did not have come last.
        strength_scale: Brings the column "strength" to 0..1: 1 / 255 for nuScenes.
        merge: Which point of a voxel, see :func:`~dos_plugin.detection.grid.voxelize`.
        options: Of the host's class.

    Raises:
        ValueError: For a feature that is no column; in forward, for points of another width, a
            scan without points in the range, and a first batch with a strength outside 0..1.
    """

    def __init__(
        self,
        point_cloud_range: Sequence[float],
        grid_size: float,
        stride: int,
        columns: Sequence[str] = ("strength", "time"),
        features: Sequence[str] = ("coord", "strength", "time"),
        strength_scale: float = 1 / 255,
        merge: Merge = "first",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.voxel = True
        grid = DetectionGrid(tuple(point_cloud_range), grid_size, stride)
        self.voxels = ScanVoxels(grid, columns, features, strength_scale, merge)

    @torch.no_grad()
    def voxelize(self, points: list[Tensor], data_samples: Any) -> dict[str, Tensor]:
        """Voxels of a batch.

        Args:
            points: Of each scan (N, 3 + columns).
            data_samples: The host's, for the names of scans in messages.

        Returns:
            ``voxels`` (M, 1, features) float32, ``num_points`` (M,) ones, ``coors`` (M, 4) int32
            batch, z, y, x sorted by batch, ``dropped`` (B,) int64 points outside the range.
        """

        def name(number: int) -> str:
            path = data_samples[number].metainfo.get("lidar_path") if data_samples else None
            return str(path or f"scan {number} of the batch")

        found = self.voxels(points, name)
        if 0 in found.counts:  # the host counts scans by the last voxel
            number = found.counts.index(0)
            raise ValueError(
                f"point_cloud_range: none of the {len(points[number])} points of {name(number)} "
                f"lies in {self.voxels.grid.point_cloud_range}"
            )
        rows = found.features
        return dict(
            voxels=rows[:, None],
            num_points=torch.ones(len(rows), dtype=torch.int32, device=rows.device),
            coors=found.coors,
            dropped=found.dropped,
        )
