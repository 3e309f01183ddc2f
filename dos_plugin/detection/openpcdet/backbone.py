"""The 3D backbone: a DOS backbone where OpenPCDet has its sparse convolutions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from dos_plugin.detection.encoder import BEVEncoder
from dos_plugin.detection.load import Inputs, LoadReport, load_pretrained
from dos_plugin.detection.openpcdet.options import grid_of, options_of
from dos_plugin.models.backbone import Branch

OPTIONS = (
    *("BACKBONE", "STRIDE", "Z_BINS", "PROJ_CHANNELS", "REDUCE", "CHECKPOINT", "BRANCH"),
    *("ADDED_CHANNELS", "MISSING_OK", "FREEZE", "AMP", "FEATURES"),
)


class DenseMap(NamedTuple):
    """What ``HeightCompression`` asks of a sparse tensor, of a map that is dense already."""

    features: Tensor  # (B, C, D, H, W)

    def dense(self) -> Tensor:
        """The map."""
        return self.features


class DOSBackbone3D(BEVEncoder):
    """Takes the place of ``VoxelResBackBone8x`` and its like. Options of ``BACKBONE_3D``:

    - ``BACKBONE``: config of the backbone, as in the pretraining.
    - ``STRIDE``: voxels along the edge of a cell of the map, as ``FEATURE_MAP_STRIDE`` of the head.
    - ``Z_BINS``: height bins D; default one a cell.
    - ``PROJ_CHANNELS``: C; ``NUM_BEV_FEATURES`` of ``HeightCompression`` is C * D. Default 64.
    - ``REDUCE``: "mean" or "max" of the cells of a bin. Default "mean".
    - ``CHECKPOINT``: file of a DOS pretraining, a segmentation run or an export; default none, or
      random weights. It is loaded when the detector is built, before the host's own checkpoints.
    - ``BRANCH``: whose backbone in it: "student", "teacher" or "segmentor". Default "student".
    - ``ADDED_CHANNELS``: input channels behind those of the pretraining, see
      :func:`~dos_plugin.detection.load.load_pretrained`. Default 0.
    - ``MISSING_OK``: beginnings of names that the checkpoint need not have.
    - ``FREEZE``: whether the backbone is left as it is. Default no.
    - ``AMP``: "bfloat16" for a backbone that computes in it on a GPU; the map is float32.
    - ``FEATURES``: as of the VFE, to be compared with those of the checkpoint. Default none.

    Raises:
        ValueError: For an unknown option, a range that the cells do not fill, features of another
            number than the backbone takes, or a checkpoint that does not fit.
    """

    def __init__(
        self,
        model_cfg: Mapping[str, Any],
        input_channels: int,
        grid_size: Any,
        voxel_size: Sequence[float],
        point_cloud_range: Sequence[float],
        **_: Any,
    ) -> None:
        options = options_of(model_cfg, OPTIONS)
        absent = [name for name in ("BACKBONE", "STRIDE") if name.lower() not in options]
        if absent:
            raise ValueError(f"BACKBONE_3D: {' and '.join(absent)} missing")
        channels = options.get("proj_channels", 64)
        super().__init__(
            options["backbone"],
            grid_of(point_cloud_range, voxel_size, options["stride"], options.get("z_bins")),
            channels,
            options.get("reduce", "mean"),
            options.get("freeze", False),
            options.get("amp"),
        )
        if input_channels != self.in_channels:
            raise ValueError(
                f"BACKBONE_3D.BACKBONE.in_channels: {self.in_channels}, the VFE gives "
                f"{input_channels} features a voxel"
            )
        self.num_point_features = channels
        self.options = options
        if options.get("checkpoint"):
            report = self.load(options["checkpoint"])
            logging.getLogger(HOST_LOGGER).info("DOSBackbone3D: %s", report)

    def load(self, file: str, branch: Branch | None = None) -> LoadReport:
        """Load a checkpoint completely, or raise ValueError.

        Args:
            file: As ``CHECKPOINT``.
            branch: Instead of ``BRANCH``.
        """
        options = self.options
        whose: Branch = branch or options.get("branch", "student")
        added, missing_ok = options.get("added_channels", 0), options.get("missing_ok", ())
        features = options.get("features")
        inputs = Inputs(self.grid.grid_size, features) if features else None
        return load_pretrained(self.backbone, file, whose, added, missing_ok, inputs)

    def forward(self, batch_dict: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """The host's contract.

        Args:
            batch_dict: ``voxel_features`` (N, in_channels), one row a voxel; ``voxel_coords``
                (N, 4) scan, z, y, x sorted by scan; ``batch_size``.

        Returns:
            The same with ``encoded_spconv_tensor``, whose ``dense()`` is (B, C, D, H, W) float32,
            and ``encoded_spconv_tensor_stride``.
        """
        coords = batch_dict["voxel_coords"].long()
        size = int(batch_dict["batch_size"])
        cells, scan = coords[:, [3, 2, 1]], coords[:, 0]
        flat = super().forward(batch_dict["voxel_features"], cells, scan, size)
        bins, height, width = self.grid.bev_shape
        batch_dict["encoded_spconv_tensor"] = DenseMap(flat.view(size, -1, bins, height, width))
        batch_dict["encoded_spconv_tensor_stride"] = self.grid.stride
        return batch_dict


HOST_LOGGER = "pcdet.utils.common_utils"  # what the host's create_logger sets up
