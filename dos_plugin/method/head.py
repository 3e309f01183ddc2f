"""Projection head and prototypes."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from .matching import up_cast
from .options import MOST_CHANNELS, check_whole
from .settings import OUT_CHANNELS


class ProjectionHead(nn.Module):
    """MLP from backbone features to the space of the prototypes (our reading: two layers).

    Args:
        in_channels: Channels of the backbone's features.
        hidden_channels: Width of the hidden layer.
        out_channels: D, channels of the projection.

    Raises:
        ValueError: If an argument is no whole number, or out of range.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int = 4096, out_channels: int = OUT_CHANNELS
    ):
        super().__init__()
        for name, value in (
            ("in_channels", in_channels),
            ("hidden_channels", hidden_channels),
            ("out_channels", out_channels),
        ):
            check_whole(name, value, 1, MOST_CHANNELS)
        self.out_channels = out_channels
        self.mlp = nn.Sequential(
            nn.Linear(in_channels, hidden_channels),
            nn.GELU(),
            nn.Linear(hidden_channels, out_channels),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, *feat: Tensor, inverse: Sequence[Tensor] = ()) -> Tensor:
        """Features to projections.

        Args:
            feat: (N, in_channels), or those of several levels as in :class:`.matching.Levels`.
            inverse: Rows of the levels, as there.

        Returns:
            (N, D) of unit length, float32.
        """
        hidden = self.mlp[1:](self._first(feat, inverse))
        return normalize(hidden.float(), dim=1)

    def _first(self, feat: Sequence[Tensor], inverse: Sequence[Tensor]) -> Tensor:
        """The first layer on up-cast features; where it has fewer channels than they, it is
        applied before, at the resolution of each level."""
        layer = cast(nn.Linear, self.mlp[0])
        if len(feat) == 1 or layer.out_features >= layer.in_features:
            return layer(up_cast(feat, inverse))
        weights = layer.weight.split([level.shape[1] for level in reversed(feat)], dim=1)[::-1]
        hidden = linear(feat[0], weights[0], layer.bias)
        for fine, weight, rows in zip(feat[1:], weights[1:], inverse):
            hidden = torch.addmm(hidden[rows], fine, weight.T)
        return hidden


class Prototypes(nn.Module):
    """K learnable prototypes on the unit sphere; calling it gives the (K, D) normalised weight."""

    def __init__(self, num_prototypes: int, channels: int):
        super().__init__()
        self.weight = nn.Parameter(normalize(torch.randn(num_prototypes, channels), dim=1))

    def forward(self) -> Tensor:
        return normalize(self.weight.float(), dim=1)

    def extra_repr(self) -> str:
        return "num_prototypes={}, channels={}".format(*self.weight.shape)
