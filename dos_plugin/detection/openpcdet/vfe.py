"""Points of a batch to the voxels and features that the pretraining used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from dos_plugin.detection.openpcdet.options import grid_of, options_of
from dos_plugin.detection.voxels import ScanVoxels


class DOSVFE(nn.Module):
    """Takes the place of ``MeanVFE``; reads ``points``, so the host need not make voxels.

    ``DATA_PROCESSOR`` ends in ``transform_points_to_voxels_placeholder``, which names the voxels'
    size and makes none. Options:

    - ``FEATURES``: in the order of the pretraining, "coord" and names of columns; those that the
      pretraining did not have come last. Default coord, strength, time.
    - ``COLUMNS``: names of the columns that the points have behind x, y, z: what
      ``used_feature_list`` calls intensity and timestamp. Default strength, time.
    - ``STRENGTH_SCALE``: brings the strength to 0..1. Default 1 / 255, for nuScenes.
    - ``MERGE``: "first" or "mean" of a voxel's points, see
      :func:`~dos_plugin.detection.grid.voxelize`. Default "first".

    Raises:
        ValueError: For an unknown option, another number of columns than the data set has, voxels
            that are no cubes; in forward, for a first batch with a strength outside 0..1.
    """

    def __init__(
        self,
        model_cfg: Mapping[str, Any],
        num_point_features: int,
        voxel_size: Sequence[float],
        point_cloud_range: Sequence[float],
        **_: Any,
    ) -> None:
        super().__init__()
        options = options_of(model_cfg, ("COLUMNS", "FEATURES", "STRENGTH_SCALE", "MERGE"))
        columns = options.get("columns", ("strength", "time"))
        if 3 + len(columns) != num_point_features:
            raise ValueError(
                f"COLUMNS: x, y, z and {', '.join(columns)} are {3 + len(columns)} columns, "
                f"used_feature_list has {num_point_features}"
            )
        self.voxels = ScanVoxels(
            grid_of(point_cloud_range, voxel_size),
            columns,
            options.get("features", ("coord", "strength", "time")),
            float(options.get("strength_scale", 1 / 255)),
            options.get("merge", "first"),
        )

    def get_output_feature_dim(self) -> int:
        """Features of a voxel, asked for by the host."""
        return len(self.voxels.index)

    def forward(self, batch_dict: dict[str, Any], **_: Any) -> dict[str, Any]:
        """The host's contract.

        Args:
            batch_dict: ``points`` (N, 1 + 3 + columns) with the scan's number first, and
                ``batch_size``.

        Returns:
            The same with ``voxel_features`` (M, features) and ``voxel_coords`` (M, 4) scan, z, y, x
            sorted by scan.
        """
        points = batch_dict["points"]
        scans = [points[points[:, 0] == number, 1:] for number in range(batch_dict["batch_size"])]
        names = batch_dict.get("frame_id")

        def name(number: int) -> str:
            return f"scan {number} of the batch" if names is None else f"scan {names[number]}"

        found = self.voxels(scans, name)
        batch_dict["voxel_features"], batch_dict["voxel_coords"] = found.features, found.coors
        return batch_dict
