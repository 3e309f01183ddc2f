"""The point structure that backbones take and return: a dict of tensors with attribute access."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dos_plugin.minihost.serialization import check_grid, serialize

SPARSE_PADDING = 96  # empty cells beyond the largest cell, as the host pads its sparse tensors


def offset2bincount(offset: Tensor) -> Tensor:
    """Cumulative sample ends ``(b,)`` to points per sample ``(b,)``, int64."""
    return torch.diff(offset.long(), prepend=offset.new_zeros(1, dtype=torch.long))


def offset2batch(offset: Tensor) -> Tensor:
    """Cumulative sample ends ``(b,)`` to the sample index of every point ``(n,)``, int64."""
    counts = offset2bincount(offset)
    return torch.arange(len(counts), device=offset.device).repeat_interleave(counts)


def batch2offset(batch: Tensor) -> Tensor:
    """Sorted sample index of every point ``(n,)`` to cumulative sample ends ``(b,)``, int64."""
    return torch.cumsum(batch.bincount(), dim=0)


class Point(dict):
    """A batch of point clouds: a dict whose keys are also attributes.

    Keys with a meaning: ``feat`` (n, c) float, ``coord`` (n, 3) float metres, ``grid_coord``
    (n, 3) int64 cells, ``batch`` (n,) int64 sorted sample index, ``offset`` (b,) int64 cumulative
    ends. ``batch`` and ``offset`` are derived from each other. Construction copies the dict, not
    the tensors.

    The real host's Point answers a missing attribute with an empty Point; this one raises
    AttributeError, so that a typo shows up here.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "batch" not in self and "offset" in self:
            self["batch"] = offset2batch(self["offset"])
        elif "offset" not in self and "batch" in self:
            self["offset"] = batch2offset(self["batch"])

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"Point has no key {name!r}; its keys: {sorted(self)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"Point has no key {name!r}; its keys: {sorted(self)}") from None

    def ensure_grid_coord(self) -> None:
        """Derive ``grid_coord`` from ``coord`` and a scalar ``grid_size`` where it is absent.

        The origin is the minimum over the whole batch, as in the real host. A view and a subset of
        it then fall into different cells, so DOS always passes ``grid_coord``.

        Raises:
            ValueError: without ``grid_coord`` and without ``coord`` + ``grid_size``.
        """
        if "grid_coord" in self:
            return
        if "coord" not in self or "grid_size" not in self:
            raise ValueError(
                "point needs the key 'grid_coord' (or 'coord' and 'grid_size' to derive it), "
                f"got the keys {sorted(self)}"
            )
        coord, grid_size = self["coord"], torch.as_tensor(self["grid_size"])
        if grid_size.numel() != 1:
            raise ValueError(f"grid_size: expected one number, got shape {tuple(grid_size.shape)}")
        cells = (coord - coord.amin(dim=0)) / grid_size.to(coord)
        self["grid_coord"] = cells.trunc().long()

    def serialization(
        self,
        order: str | Sequence[str] = "z",
        depth: int | None = None,
        shuffle_orders: bool = False,
    ) -> None:
        """Sort the points along curves; adds ``serialized_{code,order,inverse,depth}``.

        Args:
            order: One or more of z, z-trans, hilbert, hilbert-trans.
            depth: Bits per axis; by default as many as the largest cell needs.
            shuffle_orders: Whether to permute the curves (in eval mode too, as in the real host).

        Raises:
            ValueError: for cells outside the range of the codes, see ``check_grid``.
        """
        self.ensure_grid_coord()
        orders = [order] if isinstance(order, str) else list(order)
        self["order"] = orders
        needed = check_grid(self["grid_coord"], len(self["offset"]))
        self["serialized_depth"] = needed if depth is None else depth
        code, sort, inverse = serialize(
            self["grid_coord"], self["batch"], self["serialized_depth"], orders, shuffle_orders
        )
        self["serialized_code"], self["serialized_order"] = code, sort
        self["serialized_inverse"] = inverse

    def sparsify(self, pad: int = SPARSE_PADDING) -> None:
        """Make ``sparse_conv_feat``, the spconv tensor of ``feat`` on ``grid_coord``."""
        import spconv.pytorch as spconv

        self.ensure_grid_coord()
        if "sparse_shape" not in self:
            self["sparse_shape"] = (self["grid_coord"].amax(dim=0) + pad).tolist()
        cells = torch.cat([self["batch"].unsqueeze(1), self["grid_coord"]], dim=1).int()
        self["sparse_conv_feat"] = spconv.SparseConvTensor(
            self["feat"], cells.contiguous(), self["sparse_shape"], len(self["offset"])
        )
