"""Parts of Point Transformer V3. Modules take a Point, change it in place and return it.

Attributes carry the real host's names, so that parameters do too (``enc1.down.proj.weight``).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import spconv.pytorch as spconv
import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter
from torch_pointcloud.layers.dropouts import DropPath
from torch_pointcloud.layers.grid_pool import GridPool
from torch_pointcloud.layers.serialized_pool import SerializedPool

from dos_plugin.minihost.backbones.attention import PatchAttention
from dos_plugin.minihost.point import Point
from dos_plugin.minihost.serialization import shuffle_curves, sort_codes


def wrapped_norm(norm: Any, channels: int) -> nn.Sequential:
    """A normalization behind an index, as the host's containers name it (``norm1.0.weight``)."""
    return nn.Sequential(norm(channels))


class LayerScale(nn.Module):
    """Multiply every channel by a learned factor that begins at ``init``."""

    def __init__(self, channels: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), float(init)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def mlp(channels: int, hidden: int, drop: float) -> nn.Sequential:
    """Two linear layers with GELU and dropout, under the host's names."""
    first, second = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
    steps = dict(fc1=first, act=nn.GELU(), drop1=nn.Dropout(drop), fc2=second)
    return nn.Sequential(OrderedDict(steps, drop2=nn.Dropout(drop)))


class Block(nn.Module):
    """Sparse convolution as position encoding, patch attention, MLP, each with a residual.

    Args:
        channels: Feature width.
        mlp_ratio: Hidden width of the MLP over ``channels``.
        drop_path: Probability with which a point skips the attention or the MLP in training.
        pre_norm: Normalize before attention and MLP, not after the residual.
        cpe_indice_key: Name under which all convolutions of a level share their neighbours.
        proj_drop: Dropout in MLP and attention.
        layer_scale: Start value of the learned scales after attention and MLP; None for none.
        attention: Further arguments of ``PatchAttention``.
    """

    def __init__(
        self,
        channels: int,
        mlp_ratio: float,
        drop_path: float,
        pre_norm: bool,
        cpe_indice_key: str,
        proj_drop: float,
        layer_scale: float | None = None,
        **attention: Any,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.cpe = nn.Sequential(
            spconv.SubMConv3d(channels, channels, 3, bias=True, indice_key=cpe_indice_key),
            nn.Linear(channels, channels),
            nn.LayerNorm(channels),
        )
        self.norm1 = wrapped_norm(nn.LayerNorm, channels)
        self.ls1 = self._scale(channels, layer_scale)
        self.attn = PatchAttention(channels, proj_drop=proj_drop, **attention)
        self.norm2 = wrapped_norm(nn.LayerNorm, channels)
        self.ls2 = self._scale(channels, layer_scale)
        self.mlp = nn.Sequential(mlp(channels, int(channels * mlp_ratio), proj_drop))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    @staticmethod
    def _scale(channels: int, init: float | None) -> nn.Module:
        return nn.Identity() if init is None else nn.Sequential(LayerScale(channels, init))

    def forward(self, point: Point) -> Point:
        conv, linear, norm = self.cpe
        sparse = conv(point.sparse_conv_feat)
        x = point.feat + norm(linear(sparse.features))
        if self.pre_norm:
            x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), point)))
            x = x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))
        else:
            x = self.norm1(x + self.drop_path(self.ls1(self.attn(x, point))))
            x = self.norm2(x + self.drop_path(self.ls2(self.mlp(x))))
        point.feat = x
        point.sparse_conv_feat = sparse.replace_feature(x)
        return point


class LinearEmbedding(nn.Module):
    """The stem of PT-v3m2: linear, LayerNorm, GELU; optionally a token in place of masked points.

    Raises:
        ValueError: in forward, when the point has a key ``mask`` but there is no mask token.
    """

    def __init__(self, in_channels: int, channels: int, mask_token: bool) -> None:
        super().__init__()
        linear = nn.Linear(in_channels, channels)
        stem = OrderedDict(linear=linear, norm=nn.LayerNorm(channels), act=nn.GELU())
        self.stem = nn.Sequential(stem)
        self.mask_token = nn.Parameter(torch.zeros(1, channels)) if mask_token else None

    def forward(self, point: Point) -> Point:
        feat = self.stem(point.feat)
        if "mask" in point:
            if self.mask_token is None:
                raise ValueError("point has the key 'mask', but the backbone has mask_token=False")
            feat = torch.where(point.mask.unsqueeze(1), self.mask_token.to(feat.dtype), feat)
        point.feat = feat
        return point


class SparseEmbedding(nn.Module):
    """The stem of PT-v3m1: a 5x5x5 sparse convolution, BatchNorm, GELU."""

    def __init__(self, in_channels: int, channels: int, norm: Any) -> None:
        super().__init__()
        conv = spconv.SubMConv3d(in_channels, channels, 5, bias=False, indice_key="stem")
        stem = OrderedDict(conv=conv, norm=norm(channels), act=nn.GELU())
        self.stem = nn.Sequential(stem)

    def forward(self, point: Point) -> Point:
        conv, norm, act = self.stem
        sparse = conv(point.sparse_conv_feat)
        point.feat = act(norm(sparse.features))
        point.sparse_conv_feat = sparse.replace_feature(point.feat)
        return point


class GridPooling(GridPool):
    """Pooling of PT-v3m2: voxels of ``stride`` cells, rows sorted by (batch, x, y, z).

    The curves of the coarser level are always shuffled, whatever ``shuffle_orders`` of the
    backbone says: the real host does not hand that argument down.
    """

    CARRIED = ("condition", "context", "name", "split")
    AVERAGED = ("origin_coord", "color")

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Any) -> None:
        super().__init__(in_channels, out_channels, stride, act="gelu")
        self.norm = wrapped_norm(norm, out_channels)
        self.shuffle_orders = True

    def forward(self, point: Point) -> Point:  # type: ignore[override]
        feat, grid, batch, inverse, coord = super().forward(
            point.feat, point.grid_coord, point.batch, point.coord
        )
        pooled = Point(feat=feat, coord=coord, grid_coord=grid, batch=batch)
        pooled.update((key, point[key]) for key in self.CARRIED if key in point)
        for key in self.AVERAGED:
            if key in point:
                pooled[key] = scatter(point[key], inverse, reduce="mean")
        if "grid_size" in point:
            pooled.grid_size = point.grid_size * self.stride
        pooled.pooling_inverse, pooled.pooling_parent = inverse, point
        pooled.serialization(point.order, shuffle_orders=self.shuffle_orders)
        pooled.sparsify()
        return pooled


class SerializedPooling(SerializedPool):
    """Pooling of PT-v3m1: points that share a shortened code; rows follow the first curve.

    The curves are always shuffled, see ``GridPooling``; so the order of the rows is random.
    """

    CARRIED = ("condition", "context")

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Any) -> None:
        super().__init__(in_channels, out_channels, stride, act="gelu")
        self.norm = wrapped_norm(norm, out_channels)
        self.bits = (stride - 1).bit_length()
        self.shuffle_orders = True

    def forward(self, point: Point) -> Point:  # type: ignore[override]
        # A batch whose largest cell needs fewer bits is not pooled any more, as in the real host.
        bits = self.bits if self.bits <= point.serialized_depth else 0
        self.stride = 1 << bits  # by which the library's pooling goes
        feat, grid, batch, code, inverse, coord = super().forward(
            point.feat, point.grid_coord, point.batch, point.serialized_code, True, point.coord
        )
        order, order_inverse = sort_codes(code)
        if self.shuffle_orders:
            code, order, order_inverse = shuffle_curves(code, order, order_inverse)
        pooled = Point(feat=feat, coord=coord, grid_coord=grid, batch=batch)
        pooled.serialized_code, pooled.serialized_depth = code, point.serialized_depth - bits
        pooled.serialized_order, pooled.serialized_inverse = order, order_inverse
        pooled.update((key, point[key]) for key in self.CARRIED if key in point)
        pooled.pooling_inverse, pooled.pooling_parent = inverse, point
        pooled.sparsify()
        return pooled


class Unpooling(nn.Module):
    """Add projected coarse features to the projected features of the finer level.

    Args:
        in_channels: Width of the coarser level.
        skip_channels: Width of the finer level.
        out_channels: Width of the result.
        norm: Makes a normalization from its width.
        skip_only: Whether the next convolution sees the finer level alone (PT-v3m1) instead of the
            sum (PT-v3m2).
        traceable: Whether the result refers to the coarser level as ``unpooling_parent``.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        norm: Any,
        skip_only: bool,
        traceable: bool,
    ) -> None:
        super().__init__()
        width = out_channels
        self.proj = nn.Sequential(nn.Linear(in_channels, width), norm(width), nn.GELU())
        self.proj_skip = nn.Sequential(nn.Linear(skip_channels, width), norm(width), nn.GELU())
        self.skip_only = skip_only
        self.traceable = traceable

    def forward(self, point: Point) -> Point:
        parent = point.pop("pooling_parent")
        skip = self.proj_skip(parent.feat)
        # index_select, not x[inverse]: its backward on a CPU is several times faster.
        parent.feat = skip + self.proj(point.feat).index_select(0, point.pooling_inverse)
        seed = skip if self.skip_only else parent.feat
        parent.sparse_conv_feat = parent.sparse_conv_feat.replace_feature(seed)
        if self.traceable:
            parent.unpooling_parent = point
        return parent
