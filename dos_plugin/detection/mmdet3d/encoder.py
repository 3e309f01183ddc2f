"""The middle encoder: a DOS backbone where MMDetection3D has its sparse convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor

from dos_plugin.detection.encoder import BEVEncoder
from dos_plugin.detection.grid import DetectionGrid
from dos_plugin.detection.load import Inputs, load_pretrained
from dos_plugin.models.backbone import Branch


@MODELS.register_module()
class DOSMiddleEncoder(BEVEncoder):
    """Takes the place of ``SparseEncoder`` as ``pts_middle_encoder`` or ``middle_encoder``.

    Weights of a pretraining are loaded when the host initialises the model to train it, not when a
    model is built to be tested.

    Args:
        backbone: Config of the backbone, as in the pretraining.
        point_cloud_range: As of the host, metres.
        grid_size: Edge of a voxel, metres; that of the pretraining.
        stride: Voxels along the edge of a cell of the map; ``out_size_factor`` of the head.
        z_bins: Height bins D, None for one a cell.
        proj_channels: C; the 2D backbone gets C * D ``in_channels``.
        reduce: "mean" or "max" of the cells of a bin.
        checkpoint: File of a DOS pretraining, a segmentation run or an export; None for random
            weights.
        branch: Whose backbone in it: "student", "teacher" or "segmentor".
        added_channels: Input channels behind those of the pretraining, see
            :func:`~dos_plugin.detection.load.load_pretrained`.
        missing_ok: Beginnings of names that the checkpoint need not have.
        freeze: Whether the backbone is left as it is.
        amp: "bfloat16" for a backbone that computes in it on a GPU; the map is float32.
        features: As of the preprocessor, to be compared with those of the checkpoint; None for no
            comparison.

    Raises:
        ValueError: For a range that the cells do not fill, see
            :class:`~dos_plugin.detection.grid.DetectionGrid`; at training, for a checkpoint that
            does not fit.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        point_cloud_range: Sequence[float],
        grid_size: float,
        stride: int,
        z_bins: int | None = None,
        proj_channels: int = 64,
        reduce: Literal["mean", "max"] = "mean",
        checkpoint: str | None = None,
        branch: Branch = "student",
        added_channels: int = 0,
        missing_ok: Sequence[str] = (),
        freeze: bool = False,
        amp: str | None = None,
        features: Sequence[str] | None = None,
    ) -> None:
        grid = DetectionGrid(tuple(point_cloud_range), grid_size, stride, z_bins)
        super().__init__(backbone, grid, proj_channels, reduce, freeze, amp)
        self.checkpoint = checkpoint
        self.branch: Branch = branch
        self.added_channels = added_channels
        self.missing_ok = tuple(missing_ok)
        self.inputs = Inputs(grid_size, tuple(features)) if features else None

    def init_weights(self) -> None:
        """Load the checkpoint, called by the host before training."""
        if self.checkpoint is None:
            print_log("DOSMiddleEncoder: checkpoint is None, random weights", "current")
            return
        report = load_pretrained(
            self.backbone,
            self.checkpoint,
            self.branch,
            self.added_channels,
            self.missing_ok,
            self.inputs,
        )
        print_log(f"DOSMiddleEncoder: {report}", "current")

    def forward(  # type: ignore[override]
        self, voxel_features: Tensor, coors: Tensor, batch_size: int | Tensor
    ) -> Tensor:
        """The host's contract.

        Args:
            voxel_features: (N, in_channels), one row a voxel.
            coors: (N, 4) batch, z, y, x; sorted by batch.
            batch_size: B.

        Returns:
            (B, C * D, H, W) float32.
        """
        coors = coors.long()
        cells = coors[:, [3, 2, 1]]
        return super().forward(voxel_features, cells, coors[:, 0], int(batch_size))
