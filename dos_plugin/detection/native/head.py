"""The two-dimensional part of CenterPoint: a neck over the map from above, and centre heads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dos_plugin.detection.native.targets import CODE


def _conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False),
        nn.BatchNorm2d(after, eps=1e-3, momentum=0.01),
        nn.ReLU(),
    )


class Neck(nn.Module):
    """Two levels, the second at half the resolution, put together at the first.

    Args:
        in_channels: Channels of the map.
        channels: Of each level.
        depth: Convolutions of each level.
    """

    def __init__(self, in_channels: int, channels: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            _conv(in_channels, channels), *(_conv(channels, channels) for _ in range(depth - 1))
        )
        self.coarse = nn.Sequential(
            _conv(channels, channels, 2), *(_conv(channels, channels) for _ in range(depth))
        )
        self.out_channels = 2 * channels

    def forward(self, bev: Tensor) -> Tensor:
        """(B, 2 * channels, H, W) of (B, in_channels, H, W)."""
        fine = self.fine(bev)
        coarse = F.interpolate(self.coarse(fine), fine.shape[2:], mode="nearest")
        return torch.cat([fine, coarse], dim=1)


class CentreHead(nn.Module):
    """Heat maps and codes of the classes of one task.

    Args:
        in_channels: Channels of the map.
        num_classes: Classes of the task.
        velocity: Whether there is a branch for the velocity.
        channels: Of the hidden layer.
        prior: What the heat maps say before training; without, the first loss is in thousands.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        velocity: bool = True,
        channels: int = 64,
        prior: float = 0.1,
    ) -> None:
        super().__init__()
        last = nn.Conv2d(channels, num_classes, 3, padding=1)
        nn.init.constant_(last.bias, -math.log((1 - prior) / prior))  # type: ignore[arg-type]
        self.heat = nn.Sequential(_conv(in_channels, channels), last)
        width = CODE if velocity else CODE - 2
        self.code = nn.Sequential(
            _conv(in_channels, channels), nn.Conv2d(channels, width, 3, padding=1)
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C, H, W), and codes (B, 10, H, W) whose velocity is NaN without a branch."""
        code = self.code(features)
        missing = CODE - code.shape[1]
        return self.heat(features), F.pad(code, (0, 0, 0, 0, 0, missing), value=torch.nan)


def peaks(logits: Tensor, limit: int, score: float) -> tuple[Tensor, ...]:
    """The best cells of a scan's heat maps that are the highest of their neighbourhood.

    Args:
        logits: (C, H, W).
        limit: Most of them.
        score: Lowest probability.

    Returns:
        Probabilities, classes, cells along y, cells along x, each (M,), best first.
    """
    heat = logits.float().sigmoid()
    heat = torch.where(heat == F.max_pool2d(heat[None], 3, 1, 1)[0], heat, 0.0)
    best, place = heat.flatten().topk(min(limit, heat.numel()))
    best, place = best[best > score], place[best > score]
    _, height, width = heat.shape
    area = height * width
    return best, place // area, place % area // width, place % width


def weights_of(code_weights: Sequence[float], velocity: bool) -> list[float]:
    """Ten weights of the code.

    Raises:
        ValueError: If there are not ten.
    """
    if len(code_weights) != CODE:
        raise ValueError(f"code_weights: expected {CODE}, got {len(code_weights)}")
    return [*code_weights[:8], *(code_weights[8:] if velocity else (0.0, 0.0))]
