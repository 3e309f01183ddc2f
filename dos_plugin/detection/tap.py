"""Features of a backbone at a wanted stride, with the cells that they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class StageFeatures(NamedTuple):
    """Rows of one level, each a cell of its own."""

    feat: Tensor  # (M, C)
    cells: Tensor  # (M, 3) int64: x, y, z in units of stride voxels
    batch: Tensor  # (M,) int64
    stride: int


def tap(
    output: Any, cells: Tensor, batch: Tensor, stride: int, pooling: Sequence[int] = ()
) -> StageFeatures:
    """Features of a stride.

    A hierarchical encoder gives its coarsest level, from which we climb to the wanted one: features
    of a coarse row are appended to those of its finer rows, as in the pretraining. Anything else
    has one row a voxel of the input, and is averaged over the cells of the stride.

    Args:
        output: What the backbone returned: a tensor (N, C), or a point structure of the host with
            ``feat`` and, of an encoder, ``pooling_parent``, ``pooling_inverse``, ``grid_coord`` and
            ``batch``.
        cells: (N, 3) voxels of the backbone's input.
        batch: (N,) int64 their scans.
        stride: Voxels along the edge of a wanted cell.
        pooling: Strides of the backbone's poolings, from fine to coarse.

    Raises:
        TypeError: If the output is neither a tensor nor a point structure.
        ValueError: If no level has the stride, or rows do not belong to the input.
    """
    if isinstance(output, Mapping) and "feat" in output.keys():
        levels: list[Mapping[str, Any]] = [output]
        while "pooling_parent" in levels[-1].keys():
            levels.append(levels[-1]["pooling_parent"])
    elif isinstance(output, Tensor):
        levels = [{"feat": output}]
    else:
        raise TypeError(
            f"the backbone returned {type(output).__name__}, expected a tensor (N, C) or a point "
            "structure with 'feat'"
        )
    if len(levels[-1]["feat"]) != len(cells):
        raise ValueError(
            f"the backbone returned {len(levels[-1]['feat'])} rows at its finest level for "
            f"{len(cells)} voxels, expected one row a voxel (SpUNet: enc_mode=False)"
        )
    if len(levels) == 1:
        return _averaged(levels[0]["feat"], cells, batch, stride)

    if len(pooling) != len(levels) - 1:
        raise ValueError(
            f"stride: the backbone's config names {len(pooling)} poolings, its output has "
            f"{len(levels) - 1}"
        )
    strides = [1]
    for step in pooling:
        strides.append(strides[-1] * step)
    if stride not in strides:
        raise ValueError(f"stride: expected one of the encoder's {strides}, got {stride}")
    up = len(levels) - 1 - strides.index(stride)
    feat = levels[0]["feat"]
    for coarse, fine in zip(levels[:up], levels[1:]):
        feat = torch.cat([fine["feat"], feat[coarse["pooling_inverse"]]], dim=1)
    level = levels[up]
    return StageFeatures(feat, level["grid_coord"].long(), level["batch"].long(), stride)


def tap_channels(backbone: Mapping[str, Any], stride: int) -> int:
    """Width of the features that :func:`tap` gives for the config of a backbone.

    Raises:
        ValueError: If the encoder has no level of the stride.
    """
    if "channels" in backbone or str(backbone.get("type")).startswith("SpUNet"):
        channels = backbone.get("channels", (96,))
        return int(backbone.get("num_classes") or channels[-1])
    if not backbone.get("enc_mode"):
        return int(backbone.get("dec_channels", (64,))[0])
    strides = [1]
    for step in backbone.get("stride", (2, 2, 2, 2)):
        strides.append(strides[-1] * step)
    if stride not in strides:
        raise ValueError(f"stride: expected one of the encoder's {strides}, got {stride}")
    return sum(backbone.get("enc_channels", (32, 64, 128, 256, 512))[strides.index(stride) :])


def _averaged(feat: Tensor, cells: Tensor, batch: Tensor, stride: int) -> StageFeatures:
    if stride == 1:
        return StageFeatures(feat, cells.long(), batch.long(), 1)
    where = torch.cat([batch[:, None], cells.div(stride, rounding_mode="floor")], dim=1).long()
    where, row, counts = torch.unique(where, dim=0, return_inverse=True, return_counts=True)
    total = feat.new_zeros(len(where), feat.shape[1], dtype=torch.float32)
    total = total.index_add(0, row, feat.float()) / counts[:, None]
    return StageFeatures(total.to(feat.dtype), where[:, 1:], where[:, 0], stride)
