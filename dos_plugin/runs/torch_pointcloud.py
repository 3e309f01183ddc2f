"""Backbones as models of torch-pointcloud: its constructor, its names, and the host's way of it.

The library's PTv3 and SpUNet compute what the host's do, with three exceptions, which
:func:`match_host` removes: it fills a cloud smaller than a patch up with copies of its points,
where the host shrinks the patch; it may take a bit less for the curves; its z-order needs ``ocnn``.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_pointcloud.models import point_transformer_v3 as library

from dos_plugin.cpu import spconv_fixes
from dos_plugin.minihost.backbones import BACKBONES
from dos_plugin.minihost.backbones.naming import to_torch_pointcloud
from dos_plugin.minihost.serialization import check_grid, serialize, sort_codes
from dos_plugin.runs.checkpoint import read_checkpoint

FORMAT = "torch-pointcloud"
KINDS = ("PT-v3m1", "PT-v3m2", "SpUNet-v1m1")

# Options that the library lacks, and the values with which they change nothing.
LACKING = {
    "layer_scale": (None,),
    "pdnorm_bn": (False,),
    "pdnorm_ln": (False,),
    "pre_norm": (True,),
}


def constructor(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Full name and keyword arguments of the library's model for a backbone's config.

    Flash attention is left out, and the curves are not shuffled.

    Raises:
        ValueError: for another backbone, or an option that the library does not have.
    """
    kind = str(config.get("type"))
    if kind not in KINDS:
        raise ValueError(
            f"model.backbone.type: {kind} cannot be converted to {FORMAT}, expected one of "
            f"{', '.join(KINDS)}"
        )
    parameters = inspect.signature(BACKBONES[kind].__init__).parameters
    unknown = sorted(set(config) - set(parameters) - {"type"})
    if unknown:
        raise ValueError(f"model.backbone: {kind} has no option {unknown[0]!r}, nor has {FORMAT}")
    full = {key: value.default for key, value in parameters.items() if key != "self"}
    full |= {key: value for key, value in config.items() if key != "type"}
    for key, harmless in LACKING.items():
        if full.get(key, harmless[0]) not in harmless:
            raise ValueError(
                f"model.backbone.{key}={full[key]!r}: {FORMAT} has no such option, it can take "
                f"backbones with {key}={harmless[0]!r} only"
            )
    return _spunet(full) if kind.startswith("SpUNet") else _ptv3(kind, full)


def _spunet(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if config["enc_mode"]:
        raise ValueError(f"model.backbone.enc_mode=True: {FORMAT} has no SpUNet without decoder")
    stages = len(config["layers"]) // 2
    return "torch_pointcloud.models.spunet.SparseUNetSegmentation", dict(
        in_channels=config["in_channels"],
        num_classes=config["num_classes"],
        stem_channels=config["base_channels"],
        encoder_channels=tuple(config["channels"][:stages]),
        decoder_channels=tuple(config["channels"][stages:]),
        encoder_depths=tuple(config["layers"][:stages]),
        decoder_depths=tuple(config["layers"][stages:]),
        norm_kwargs=dict(eps=1e-3, momentum=0.01),
    )


def _ptv3(kind: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    m2 = kind == "PT-v3m2"
    order = config["order"]
    kwargs = dict(
        in_channels=config["in_channels"],
        serialization_orders=(order,) if isinstance(order, str) else tuple(order),
        shuffle_serialization_orders=False,
        strides=tuple(config["stride"]),
        encoder_depths=tuple(config["enc_depths"]),
        encoder_channels=tuple(config["enc_channels"]),
        encoder_num_heads=tuple(config["enc_num_head"]),
        encoder_patch_size=tuple(config["enc_patch_size"]),
        attn_kind="rpe" if config["enable_rpe"] else "default",
        use_flash_attn=False,
        upcast_attn=config["upcast_attention"],
        upcast_softmax=config["upcast_softmax"],
        pooling="grid" if m2 else "serialized",
        stem_type="linear" if m2 else "sparse_conv",
        norm="layer_norm" if m2 else "batch_norm",
        norm_kwargs=dict(mode="node") if m2 else dict(eps=1e-3, momentum=0.01),
    )
    same = ("mlp_ratio", "qkv_bias", "qk_scale", "attn_drop", "proj_drop", "drop_path")
    kwargs |= {key: config[key] for key in same}
    name = "PointTransformerV3Encoder"
    if not config["enc_mode"]:  # the library counts the stages of the decoder as they run
        name = "PointTransformerV3Segmentation"
        kwargs["num_classes"] = 0
        for key, theirs in (
            ("dec_depths", "decoder_depths"),
            ("dec_channels", "decoder_channels"),
            ("dec_num_head", "decoder_num_heads"),
            ("dec_patch_size", "decoder_patch_size"),
        ):
            kwargs[theirs] = tuple(config[key])[::-1]
    return f"torch_pointcloud.models.point_transformer_v3.{name}", kwargs


def library_names(state: Mapping[str, Tensor], name: str) -> dict[str, str]:
    """The library's name of every entry of a backbone's state dict, by the host's name.

    The mask token, which stands in for masked points in pretraining alone, has none.

    Args:
        state: state dict by the host's names, without a prefix.
        name: the library's model, as :func:`constructor` gives it.
    """
    bare = "encoder." if name.endswith("Encoder") else ""
    # One entry at a time would not do: the names depend on what else there is.
    tagged = {key: torch.tensor(index) for index, key in enumerate(state)}
    keys = list(state)
    renamed = to_torch_pointcloud(tagged)
    return {keys[int(index)]: key.removeprefix(bare) for key, index in renamed.items()}


def build(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """The library's model of that name."""
    module, _, cls = name.rpartition(".")
    return getattr(importlib.import_module(module), cls)(**kwargs)


def load(path: str | Path) -> nn.Module:
    """The model of a file of ``dos-plugin export --to torch-pointcloud``, in eval mode.

    It gives the features of the host's backbone, see :func:`match_host`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such file.
    """
    content = read_checkpoint(path)
    if content.exported.get("format") != FORMAT:
        raise ValueError(f"{path}: is no file of dos-plugin export --to {FORMAT}")
    model = build(content.constructor, content.kwargs or {})
    model.load_state_dict(content.state)
    return match_host(model).eval()


class HostEncoder(library.PointTransformerV3Encoder):
    """An encoder of the library that lays its curves as the host does, z-orders included."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor | None,
        pos_grid: Tensor,
        batch: Tensor,
        pos: Tensor | None = None,
        condition: str | None = None,
        return_intermediates: bool = False,
    ) -> Any:
        code, order, inverse = self._curves(pos_grid, batch)
        x = self.stem(pos_grid.float() if x is None else x, pos_grid, batch, condition=condition)
        levels = []
        stages: Any = self.blocks
        for stage in stages:
            if stage.downsample is not None:
                level = dict(x=x, pos_grid=pos_grid, batch=batch, pos=pos, serialized_code=code)
                levels.append(level | dict(serialized_order=order, serialized_inverse=inverse))
                args = x, pos_grid, batch
                if isinstance(stage.downsample, library.GridPool):
                    x, pos_grid, batch, rows, pos = stage.downsample(*args, pos, condition)
                    code, order, inverse = self._curves(pos_grid, batch)
                else:
                    pooled = stage.downsample(*args, code, True, pos, condition)
                    x, pos_grid, batch, code, rows, pos = pooled
                    order, inverse = sort_codes(code)
                levels[-1]["pooling_inverse"] = rows
            sparse = library.convert_to_spconv_tensor(x, pos_grid, batch)
            for i, block in enumerate(stage.blocks):
                curve = order[i % len(order)], inverse[i % len(order)]
                x, sparse = block(x, sparse, pos_grid, batch, *curve, pos, condition)
        return (x, pos_grid, batch, levels) if return_intermediates else (x, pos_grid, batch)

    def _curves(self, pos_grid: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        depth = check_grid(pos_grid, int(batch.max()) + 1)
        shuffle = self.shuffle_serialization_orders and self.training
        return serialize(pos_grid, batch, depth, self.serialization_orders, shuffle)


class _HostPatches:
    """Let an attention of the library shrink its patches to the smallest cloud of a batch."""

    def forward(self, x: Tensor, pos_grid: Tensor, batch: Tensor, **options: Any) -> Tensor:
        attention: Any = self
        size = min(attention.patch_size, int(batch.bincount().min()))
        # Flash attention takes patches of different lengths.
        if size < attention.patch_size and not attention.use_flash_attn:
            options["patch_layout"] = None  # the caller's has whole patches
            # This module keeps its size for the next batch; the copy has the same weights.
            attention = copy.copy(attention)
            attention.patch_size = size
        parent: Any = super(_HostPatches, attention)
        return parent.forward(x, pos_grid, batch, **options)


class HostAttention(_HostPatches, library.SerializedAttention):  # type: ignore[misc]
    """The library's attention in the host's patches."""


class HostAttentionRPE(_HostPatches, library.SerializedAttentionRPE):  # type: ignore[misc]
    """The library's attention with relative positions in the host's patches."""


HOST_WAY: dict[type[nn.Module], type[nn.Module]] = {
    library.PointTransformerV3Encoder: HostEncoder,
    library.SerializedAttention: HostAttention,
    library.SerializedAttentionRPE: HostAttentionRPE,
}


def match_host(model: nn.Module) -> nn.Module:
    """Let a PTv3 of the library cut patches and lay curves as the host does; returns the model.

    Its encoder and attentions become subclasses of what they were; weights and names stay. Without
    flash attention the host shrinks the patches of all clouds to the smallest cloud of a batch. On
    a machine without CUDA, spconv is repaired, too.
    """
    spconv_fixes.apply()
    for module in model.modules():
        if type(module) in HOST_WAY:
            module.__class__ = HOST_WAY[type(module)]
    return model


@torch.no_grad()
def point_features(model: nn.Module, feat: Tensor, grid_coord: Tensor, batch: Tensor) -> Tensor:
    """Features (N, C) of every voxel; an encoder's are those of all levels, finest first.

    Args:
        model: the library's model.
        feat: (N, c) input features.
        grid_coord: (N, 3) int64 cells, from 0.
        batch: (N,) int64 cloud of every voxel, sorted.
    """
    if not isinstance(model, library.PointTransformerV3Encoder):
        return model(feat, grid_coord, batch)
    feat, _, _, levels = model(feat, grid_coord, batch, return_intermediates=True)
    for level in reversed(levels):
        feat = torch.cat([level["x"], feat[level["pooling_inverse"]]], dim=1)
    return feat
