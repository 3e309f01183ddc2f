"""Attention within patches of a serialized cloud, with the real host's layout of patches."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_pointcloud.layers import serialized_attention

from dos_plugin.minihost.point import Point, offset2batch, offset2bincount

try:
    import flash_attn
except ImportError:
    flash_attn = None


class PatchLayout(NamedTuple):
    """How the sorted points of a batch are cut into patches.

    Attributes:
        slot_row: Sorted row that each slot of the patches holds, (slots,).
        row_slot: Slot that each sorted row reads its result from, (n,).
        cu_seqlens: Cumulative patch lengths (patches + 1,), int32.
        patch_size: Largest number of points in a patch.
    """

    slot_row: Tensor
    row_slot: Tensor
    cu_seqlens: Tensor
    patch_size: int


@torch.no_grad()
def patch_layout(offset: Tensor, patch_size: int, varlen: bool = False) -> PatchLayout:
    """Cut every cloud of a batch into patches as the real host does.

    Clouds with more points than a patch are padded to whole patches: the last patch borrows from
    the one before it (slot j without a point of its own takes the point of slot j - K). Without
    variable-length patches K shrinks to the smallest cloud of the batch.

    Args:
        offset: Cumulative sample ends (b,).
        patch_size: Wanted points per patch.
        varlen: Whether the kernel takes patches of different lengths (flash attention).
    """
    size = patch_size if varlen else min(patch_size, int(offset2bincount(offset).min()))
    found = serialized_attention.patch_layout(
        offset2batch(offset), size, "above" if varlen else "all"
    )
    return PatchLayout(
        found["padded_indices"], found["unpadded_indices"], found["cu_seqlens"], size
    )


class PatchAttention(nn.Module):
    """Multi-head self-attention in patches along one of the point's curves.

    Arguments as in the real host's PTv3.

    Raises:
        ValueError: for channels that the heads do not divide, and for relative positions or
            up-casting together with flash attention.
        ImportError: for flash attention without the package.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        patch_size: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        order_index: int = 0,
        enable_rpe: bool = False,
        enable_flash: bool = True,
        upcast_attention: bool = True,
        upcast_softmax: bool = True,
    ) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"num_heads: {num_heads} heads do not divide {channels} channels")
        if enable_flash and (enable_rpe or upcast_attention or upcast_softmax):
            raise ValueError(
                "enable_flash=True excludes enable_rpe, upcast_attention, upcast_softmax; got "
                f"{enable_rpe}, {upcast_attention}, {upcast_softmax}"
            )
        if enable_flash and flash_attn is None:
            raise ImportError(
                "enable_flash=True needs the package flash_attn, which is not installed; "
                "set enable_flash=False in the backbone's config"
            )
        self.num_heads = num_heads
        self.patch_size = patch_size
        self.scale = qk_scale or (channels // num_heads) ** -0.5
        self.order_index = order_index
        self.enable_flash = enable_flash
        self.upcast = upcast_attention or upcast_softmax
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)
        self.proj_drop = nn.Dropout(proj_drop)
        self.rpe = None
        if enable_rpe:
            self.rpe = serialized_attention.RelativePositionalEncoding(patch_size, num_heads)

    def _gather(self, point: Point) -> tuple[Tensor, Tensor, PatchLayout]:
        """Point rows of the slots, slots of the point rows, and the layout, kept on the point."""
        cache = point.setdefault("patch_layouts", {})
        size, index = self.patch_size, self.order_index
        if size not in cache:
            cache[size] = patch_layout(point.offset, size, self.enable_flash)
        layout = cache[size]
        if (size, index) not in cache:
            cache[size, index] = (
                point.serialized_order[index][layout.slot_row],
                layout.row_slot[point.serialized_inverse[index]],
            )
        return *cache[size, index], layout

    def forward(self, x: Tensor, point: Point) -> Tensor:
        """Attend among rows of ``x`` (n, c), which belong to the serialized ``point``."""
        slots, rows, layout = self._gather(point)
        heads = self.num_heads
        # index_select, not x[slots]: its backward on a CPU is several times faster.
        qkv = self.qkv(x).index_select(0, slots)
        dropout = self.attn_drop if self.training else 0.0
        if self.enable_flash:
            packed = qkv.to(torch.bfloat16).unflatten(1, (3, heads, -1))
            out = flash_attn.flash_attn_varlen_qkvpacked_func(
                packed,
                layout.cu_seqlens,
                max_seqlen=layout.patch_size,
                dropout_p=dropout,
                softmax_scale=self.scale,
            ).to(qkv.dtype)
        else:
            patches = qkv.view(-1, layout.patch_size, 3, heads, qkv.shape[1] // (3 * heads))
            q, k, v = patches.permute(2, 0, 3, 1, 4).unbind(0)
            bias = None
            if self.rpe is not None:
                cells = point.grid_coord.index_select(0, slots)
                bias = self.rpe(cells.view(-1, layout.patch_size, 3)).to(q.dtype)
            out = self._attend(q, k, v, bias, dropout).transpose(1, 2)
        out = out.reshape(len(slots), -1).index_select(0, rows)
        return self.proj_drop(self.proj(out))

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float
    ) -> Tensor:
        attend = partial(F.scaled_dot_product_attention, dropout_p=dropout, scale=self.scale)
        if not self.upcast or q.dtype not in (torch.float16, torch.bfloat16):
            return attend(q, k, v, attn_mask=bias)
        bias = None if bias is None else bias.float()
        with torch.autocast(q.device.type, enabled=False):
            return attend(q.float(), k.float(), v.float(), attn_mask=bias).to(q.dtype)
