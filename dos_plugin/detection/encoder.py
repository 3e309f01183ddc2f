"""A DOS backbone as what detectors call a middle encoder: voxels in, a map from above out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dos_plugin.detection.bev import to_bev
from dos_plugin.detection.grid import DetectionGrid
from dos_plugin.detection.tap import tap, tap_channels
from dos_plugin.host import active_host
from dos_plugin.models.backbone import runnable


def build_backbone(config: Mapping[str, Any]) -> nn.Module:
    """A backbone by the active host of the plugin: Pointcept's own, or the embedded host's.

    Flash attention is left out where there is none.
    """
    return active_host().build_model(runnable(config))


class BEVEncoder(nn.Module):
    """Backbone, features of a stride, one linear layer, map from above.

    In eval mode PTv3 does not shuffle its curves, so that a scan has one result.

    Args:
        backbone: Its config, as in the pretraining; of PTv3 with ``enc_mode=True`` for the encoder.
        grid: The detector's grid.
        channels: C, channels of the linear layer.
        reduce: How rows that share a place are reduced, see :func:`to_bev`.
        freeze: Whether the backbone keeps its weights and stays in eval mode.
        amp: "bfloat16" for a backbone that computes in it on a GPU, as in the pretraining, and a
            detector around it that does not: focal losses of heat maps overflow in half precision.

    Raises:
        ValueError: If the backbone has no level of the grid's stride, or for another ``amp``.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        grid: DetectionGrid,
        channels: int = 64,
        reduce: Literal["mean", "max"] = "mean",
        freeze: bool = False,
        amp: str | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.reduce = reduce
        self.freeze = freeze
        if amp not in (None, "bfloat16"):
            raise ValueError(f"amp: expected bfloat16 or None, got {amp!r}")
        self.amp = amp
        self.in_channels = int(backbone["in_channels"])
        self.pooling = tuple(backbone.get("stride", (2, 2, 2, 2)))
        self.backbone = build_backbone(backbone)
        self.backbone.requires_grad_(not freeze)
        modules: list[Any] = list(self.backbone.modules())
        self.shuffling = [m for m in modules if getattr(m, "shuffle_orders", None) is True]
        self.proj = nn.Sequential(
            nn.Linear(tap_channels(backbone, grid.stride), channels, bias=False),
            nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01),
            nn.ReLU(),
        )
        self.out_channels = channels * grid.bev_shape[0]
        self.train()

    def train(self, mode: bool = True) -> BEVEncoder:
        """Training mode, of a frozen backbone never."""
        super().train(mode)
        shuffled = mode and not self.freeze
        self.backbone.train(shuffled)
        for module in self.shuffling:
            module.shuffle_orders = shuffled
        return self

    def forward(self, feat: Tensor, cells: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        """The map from above.

        Args:
            feat: (N, in_channels) features of voxels, in the order of the pretraining.
            cells: (N, 3) int64 their place in the grid: x, y, z.
            batch: (N,) int64 their scan, sorted.
            batch_size: B; a scan without voxels is 0 everywhere. Where no scan has any, the map
                hangs on all parameters still, whose gradients are 0: several processes wait for
                those of each.

        Returns:
            (B, C * D, H, W) float32, H along y and W along x; channel c of height bin d is
            c * D + d.

        Raises:
            ValueError: If the rows do not fit the backbone or are not sorted by scan.
        """
        if feat.ndim != 2 or feat.shape[1] != self.in_channels:
            raise ValueError(
                f"in_channels: the backbone expects {self.in_channels} features a voxel, got "
                f"{tuple(feat.shape)}; the feature keys must be those of its config"
            )
        if (batch[1:] < batch[:-1]).any():
            raise ValueError("batch: expected rows sorted by scan")
        x, y, z = (voxels // self.grid.stride for voxels in self.grid.shape)
        if len(feat) == 0:
            nothing = sum(p.sum() * 0 for p in self.parameters() if p.requires_grad)
            return torch.zeros(batch_size, self.out_channels, y, x, device=feat.device) + nothing
        # backbones take no scan without points: present ones are numbered anew
        counts = torch.bincount(batch, minlength=batch_size)
        present = counts.nonzero().flatten()
        dense = ((counts > 0).cumsum(0) - 1)[batch]
        point = dict(
            feat=feat,
            coord=self.grid.centres(cells),
            grid_coord=cells,
            offset=counts[present].cumsum(0),
        )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze), self._precision():
            stage = tap(self.backbone(point), cells, dense, self.grid.stride, self.pooling)
        rows = self.proj(stage.feat.float()).float()
        return to_bev(
            rows,
            stage.cells,
            present[stage.batch],
            batch_size,
            (z, y, x),
            self.grid.bev_shape[0],
            self.reduce,
        )

    def _precision(self) -> Any:
        if self.amp is None or not next(self.proj.parameters()).is_cuda:
            return contextlib.nullcontext()
        return torch.autocast("cuda", torch.bfloat16)
