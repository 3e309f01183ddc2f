"""Point Transformer V3 in the real host's two variants, m1 and m2 (Sonata)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import spconv.pytorch as spconv
import torch
from torch import nn

from dos_plugin.minihost.backbones.blocks import (
    Block,
    GridPooling,
    LinearEmbedding,
    SerializedPooling,
    SparseEmbedding,
    Unpooling,
)
from dos_plugin.minihost.backbones.inputs import check_input
from dos_plugin.minihost.point import Point

# Options of the stages, with a prefix ``enc_`` or ``dec_``, and of all blocks alike.
SIZES = ("depths", "channels", "num_head", "patch_size")
BLOCK = (
    "mlp_ratio",
    "qkv_bias",
    "qk_scale",
    "attn_drop",
    "proj_drop",
    "layer_scale",
    "pre_norm",
    "enable_rpe",
    "enable_flash",
    "upcast_attention",
    "upcast_softmax",
)


def _check_lengths(lengths: Mapping[str, Sequence[Any]], stages: int, name: str) -> None:
    for key, value in lengths.items():
        if len(value) != stages:
            raise ValueError(f"{name}: {key} needs {stages} entries, got {tuple(value)}")


class _PointTransformerV3(nn.Module):
    """What both variants share: stages of blocks, pooled on the way down, unpooled on the way up.

    Subclasses set ``name`` and ``pooling`` and make the ``embedding``.

    Args:
        embedding: The stem.
        norm: Makes a normalization of (un)pooling from its width.
        options: The real host's arguments, by name.
    """

    name: str
    pooling: Any

    def __init__(self, embedding: nn.Module, norm: Any, options: Mapping[str, Any]) -> None:
        super().__init__()
        stride, enc_mode, drop_path = (options[k] for k in ("stride", "enc_mode", "drop_path"))
        enc, dec = ({key: options[f"{side}_{key}"] for key in SIZES} for side in ("enc", "dec"))
        block = {key: options[key] for key in BLOCK if key in options}
        stages = len(enc["depths"])
        _check_lengths({f"enc_{k}": v for k, v in enc.items()}, stages, self.name)
        _check_lengths({"stride": stride}, stages - 1, self.name)
        if not enc_mode:
            _check_lengths({f"dec_{k}": v for k, v in dec.items()}, stages - 1, self.name)
        order = options["order"]
        self.order = [order] if isinstance(order, str) else list(order)
        self.in_channels = options["in_channels"]
        self.shuffle_orders = options["shuffle_orders"]
        self.enc_mode = enc_mode
        self.embedding = embedding

        def blocks(sizes: Mapping[str, Sequence[int]], s: int, drops: list[float]) -> Any:
            for i, drop in enumerate(drops):
                made = Block(
                    channels=sizes["channels"][s],
                    num_heads=sizes["num_head"][s],
                    patch_size=sizes["patch_size"][s],
                    drop_path=drop,
                    cpe_indice_key=f"stage{s}",
                    order_index=i % len(self.order),
                    **block,
                )
                yield f"block{i}", made

        widths = enc["channels"]
        drops = torch.linspace(0, drop_path, sum(enc["depths"])).split(list(enc["depths"]))
        self.enc = nn.Sequential()
        for s in range(stages):
            stage: OrderedDict[str, nn.Module] = OrderedDict()
            if s > 0:
                stage["down"] = self.pooling(widths[s - 1], widths[s], stride[s - 1], norm)
            stage.update(blocks(enc, s, drops[s].tolist()))
            self.enc.add_module(f"enc{s}", nn.Sequential(stage))
        if enc_mode:
            return
        drops = torch.linspace(0, drop_path, sum(dec["depths"])).split(list(dec["depths"]))
        below = [*dec["channels"], widths[-1]]
        self.dec = nn.Sequential()
        for s in reversed(range(stages - 1)):
            up = Unpooling(
                below[s + 1],
                widths[s],
                below[s],
                norm,
                skip_only=self.pooling is SerializedPooling,
                traceable=options.get("traceable", False),
            )
            stage = OrderedDict(up=up)
            stage.update(blocks(dec, s, drops[s].tolist()[::-1]))
            self.dec.add_module(f"dec{s}", nn.Sequential(stage))

    def _embed(self, point: Point) -> Point:
        raise NotImplementedError

    def forward(self, data_dict: Mapping[str, Any]) -> Point:
        """Features of a batch of clouds.

        Args:
            data_dict: ``feat`` (n, c) float, ``coord`` (n, 3) float metres, ``grid_coord`` (n, 3)
                int64 in [0, 65535) (or a scalar ``grid_size``), ``offset`` (b,) int64 cumulative
                ends (or ``batch``). Left unchanged.

        Returns:
            With enc_mode the coarsest level, each level referring to the finer one as
            ``pooling_parent`` and to its rows by ``pooling_inverse``; else the input level with
            its rows in the input order.

        Raises:
            ValueError: for missing keys, wrong shapes, empty clouds or cells out of range.
        """
        point = check_input(data_dict, self.in_channels, self.name, keys=("feat", "coord"))
        point = self.enc(self._embed(point))
        return point if self.enc_mode else self.dec(point)


class PointTransformerV3m1(_PointTransformerV3):
    """PT-v3m1: sparse stem, pooling by shortened codes, BatchNorm in stem and (un)pooling.

    Arguments and defaults are the real host's. Prompt-driven norms (``pdnorm_*``) are not
    supported here.
    """

    name = "PT-v3m1"
    pooling = SerializedPooling

    def __init__(
        self,
        in_channels: int = 6,
        order: str | Sequence[str] = ("z", "z-trans"),
        stride: Sequence[int] = (2, 2, 2, 2),
        enc_depths: Sequence[int] = (2, 2, 2, 6, 2),
        enc_channels: Sequence[int] = (32, 64, 128, 256, 512),
        enc_num_head: Sequence[int] = (2, 4, 8, 16, 32),
        enc_patch_size: Sequence[int] = (48, 48, 48, 48, 48),
        dec_depths: Sequence[int] = (2, 2, 2, 2),
        dec_channels: Sequence[int] = (64, 64, 128, 256),
        dec_num_head: Sequence[int] = (4, 4, 8, 16),
        dec_patch_size: Sequence[int] = (48, 48, 48, 48),
        mlp_ratio: float = 4,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.3,
        pre_norm: bool = True,
        shuffle_orders: bool = True,
        enable_rpe: bool = False,
        enable_flash: bool = True,
        upcast_attention: bool = False,
        upcast_softmax: bool = False,
        enc_mode: bool = False,
        pdnorm_bn: bool = False,
        pdnorm_ln: bool = False,
        pdnorm_decouple: bool = True,
        pdnorm_adaptive: bool = False,
        pdnorm_affine: bool = True,
        pdnorm_conditions: Sequence[str] = ("ScanNet", "S3DIS", "Structured3D"),
    ) -> None:
        options = dict(locals())  # the arguments
        if pdnorm_bn or pdnorm_ln:
            raise ValueError(
                "PT-v3m1: pdnorm_bn and pdnorm_ln need the real host; the embedded host has "
                "plain norms only"
            )
        norm = partial(nn.BatchNorm1d, eps=1e-3, momentum=0.01)
        super().__init__(SparseEmbedding(in_channels, enc_channels[0], norm), norm, options)

    def _embed(self, point: Point) -> Point:
        point.serialization(self.order, shuffle_orders=self.shuffle_orders)
        point.sparsify()
        return self.embedding(point)


class PointTransformerV3m2(_PointTransformerV3):
    """PT-v3m2: linear stem, grid pooling, LayerNorm only, optional mask token.

    Arguments and defaults are the real host's.
    """

    name = "PT-v3m2"
    pooling = GridPooling

    def __init__(
        self,
        in_channels: int = 6,
        order: str | Sequence[str] = ("z", "z-trans"),
        stride: Sequence[int] = (2, 2, 2, 2),
        enc_depths: Sequence[int] = (2, 2, 2, 6, 2),
        enc_channels: Sequence[int] = (32, 64, 128, 256, 512),
        enc_num_head: Sequence[int] = (2, 4, 8, 16, 32),
        enc_patch_size: Sequence[int] = (48, 48, 48, 48, 48),
        dec_depths: Sequence[int] = (2, 2, 2, 2),
        dec_channels: Sequence[int] = (64, 64, 128, 256),
        dec_num_head: Sequence[int] = (4, 4, 8, 16),
        dec_patch_size: Sequence[int] = (48, 48, 48, 48),
        mlp_ratio: float = 4,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.3,
        layer_scale: float | None = None,
        pre_norm: bool = True,
        shuffle_orders: bool = True,
        enable_rpe: bool = False,
        enable_flash: bool = True,
        upcast_attention: bool = False,
        upcast_softmax: bool = False,
        traceable: bool = False,
        mask_token: bool = False,
        enc_mode: bool = False,
        freeze_encoder: bool = False,
    ) -> None:
        options = dict(locals())  # the arguments
        embedding = LinearEmbedding(in_channels, enc_channels[0], mask_token)
        super().__init__(embedding, nn.LayerNorm, options)
        self.freeze_encoder = freeze_encoder
        if freeze_encoder:
            self.embedding.requires_grad_(False)
            self.enc.requires_grad_(False)
        self.apply(_init_m2)

    def _embed(self, point: Point) -> Point:
        point = self.embedding(point)
        point.serialization(self.order, shuffle_orders=self.shuffle_orders)
        point.sparsify()
        return point


def _init_m2(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, spconv.SubMConv3d)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
