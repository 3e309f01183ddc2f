"""SpUNet-v1m1: a residual U-Net of sparse convolutions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import spconv.pytorch as spconv
import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter
from torch_pointcloud.layers.spconv_blocks import SparseBasicBlock, SparseConvBlock

from dos_plugin.minihost.backbones.inputs import check_input

_norm = partial(nn.BatchNorm1d, eps=1e-3, momentum=0.01)
_conv = partial(SparseConvBlock, norm=_norm)


class ResidualBlock(SparseBasicBlock):
    """The library's block of two 3x3x3 convolutions and a residual, its norms called as the host's.

    The order of the children stays, since an optimizer and a state dict follow it.
    """

    norm1 = property(lambda self: self.bn1)
    norm2 = property(lambda self: self.bn2)

    def __init__(self, in_channels: int, out_channels: int, indice_key: str) -> None:
        super().__init__(in_channels, out_channels, indice_key=indice_key, norm=_norm)
        for name, child in list(self.named_children()):
            delattr(self, name)
            self.add_module(name.replace("norm", "bn"), child)


def _blocks(widths: Sequence[int], indice_key: str) -> nn.Module:
    """Residual blocks from ``widths[0]`` channels over ``widths[1]`` and so on."""
    pairs = enumerate(zip(widths, widths[1:]))
    return spconv.SparseSequential(
        OrderedDict((f"block{i}", ResidualBlock(a, b, indice_key)) for i, (a, b) in pairs)
    )


class SpUNet(nn.Module):
    """SpUNet-v1m1; arguments and defaults are the real host's.

    Args:
        in_channels: Width of ``feat``.
        num_classes: Width of the output; 0 for the features themselves.
        base_channels: Width of the stem.
        channels: Widths of the stages, down and then up.
        layers: Blocks of the stages, down and then up.
        enc_mode: Without the way up; the result is then one mean vector per cloud.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        base_channels: int = 32,
        channels: Sequence[int] = (32, 64, 128, 256, 256, 128, 96, 96),
        layers: Sequence[int] = (2, 3, 4, 6, 2, 2, 2, 2),
        enc_mode: bool = False,
    ) -> None:
        super().__init__()
        if len(layers) % 2 or len(layers) != len(channels):
            raise ValueError(
                "SpUNet-v1m1: channels and layers need the same even number of entries, "
                f"got {tuple(channels)} and {tuple(layers)}"
            )
        self.in_channels = in_channels
        self.enc_mode = enc_mode
        self.num_stages = len(layers) // 2
        self.conv_input = _conv(in_channels, base_channels, 5, indice_key="stem")
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.enc = nn.ModuleList()
        self.dec = None if enc_mode else nn.ModuleList()

        finer = [base_channels, *channels[: self.num_stages]]  # width of each level, way down
        rising = [*channels[::-1][: self.num_stages], channels[self.num_stages - 1]]  # way up
        for s in range(self.num_stages):
            key, width = f"spconv{s + 1}", channels[s]
            down = _conv(finer[s], width, 2, stride=2, conv_type="spconv", indice_key=key)
            self.down.append(down)
            self.enc.append(_blocks([width] * (layers[s] + 1), f"subm{s + 1}"))
            if self.dec is None:
                continue
            out = rising[s]
            up = _conv(rising[s + 1], out, 2, conv_type="inverseconv", indice_key=key)
            self.up.append(up)
            self.dec.append(_blocks([out + finer[s]] + [out] * layers[-1 - s], f"subm{s}"))

        width = channels[self.num_stages - 1] if enc_mode else channels[-1]
        self.final = (
            spconv.SubMConv3d(width, num_classes, 1, bias=True)
            if num_classes > 0
            else spconv.Identity()
        )
        self.apply(_init)

    def forward(self, input_dict: Mapping[str, Any]) -> Tensor:
        """Features (n, channels[-1]) or logits (n, num_classes), rows as in the input.

        Args:
            input_dict: ``feat`` (n, in_channels) float, ``grid_coord`` (n, 3) int64 >= 0,
                ``offset`` (b,) int64 cumulative ends.

        Raises:
            ValueError: for missing keys, wrong shapes, empty clouds or negative cells.
        """
        point = check_input(input_dict, self.in_channels, "SpUNet-v1m1", ("feat", "grid_coord"))
        point.sparsify()
        x = self.conv_input(point.sparse_conv_feat)
        skips = [x]
        for down, blocks in zip(self.down, self.enc):
            x = blocks(down(x))
            skips.append(x)
        if self.dec is None:
            x = self.final(x)
            return scatter(x.features, x.indices[:, 0].long(), reduce="mean")
        for up, blocks, skip in zip(self.up[::-1], self.dec[::-1], skips[-2::-1]):
            x = up(x)
            x = blocks(x.replace_feature(torch.cat([x.features, skip.features], dim=1)))
        return self.final(x).features


def _init(module: nn.Module) -> None:
    if isinstance(module, spconv.SubMConv3d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
