"""Points of a scan to the voxels and features that the pretraining used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet3d.models.data_preprocessors import Det3DDataPreprocessor
from mmdet3d.registry import MODELS
from torch import Tensor

from dos_plugin.detection.grid import DetectionGrid, Merge, voxelize


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
        self.grid = DetectionGrid(tuple(point_cloud_range), grid_size, stride)
        self.merge: Merge = merge
        self.columns = tuple(columns)
        self.strength_scale = strength_scale
        unknown = [name for name in features if name not in ("coord", *columns)]
        if unknown:
            raise ValueError(
                f"features: {', '.join(unknown)} not among coord and the columns "
                f"{', '.join(columns)}"
            )
        self.index: list[int] = []
        for name in features:
            self.index += [0, 1, 2] if name == "coord" else [3 + self.columns.index(name)]
        self._strength_seen = False

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
        voxels, coors, dropped = [], [], []
        for number, scan in enumerate(points):
            name = self._name(data_samples, number)
            width = 3 + len(self.columns)
            if scan.shape[1] != width:
                raise ValueError(
                    f"columns: x, y, z and {', '.join(self.columns)} are {width} columns, the "
                    f"points of {name} have {scan.shape[1]}"
                )
            found = voxelize(self._scaled(scan, name), self.grid, self.merge)
            if len(found.cells) == 0:  # the host counts scans by the last voxel
                raise ValueError(
                    f"point_cloud_range: none of the {len(scan)} points of {name} lies in "
                    f"{self.grid.point_cloud_range}"
                )
            voxels.append(found.points[:, self.index])
            cells = found.cells[:, [2, 1, 0]].int()
            coors.append(torch.nn.functional.pad(cells, (1, 0), value=number))
            dropped.append(found.dropped)
        rows = torch.cat(voxels)
        return dict(
            voxels=rows[:, None],
            num_points=torch.ones(len(rows), dtype=torch.int32, device=rows.device),
            coors=torch.cat(coors),
            dropped=torch.stack(dropped),
        )

    def _scaled(self, scan: Tensor, name: str) -> Tensor:
        if "strength" not in self.columns:
            return scan
        column = 3 + self.columns.index("strength")
        scale = scan.new_ones(scan.shape[1])
        scale[column] = self.strength_scale
        scan = scan * scale
        if not self._strength_seen and len(scan):  # once: a GPU waits for it
            low, high = scan[:, column].aminmax()
            if low < 0 or high > 1:
                raise ValueError(
                    f"strength_scale={self.strength_scale:g}: strength of {name} goes from "
                    f"{low:g} to {high:g}, expected 0 to 1 as in the pretraining"
                )
            self._strength_seen = True
        return scan

    @staticmethod
    def _name(data_samples: Any, number: int) -> str:
        path = data_samples[number].metainfo.get("lidar_path") if data_samples else None
        return str(path or f"scan {number} of the batch")
