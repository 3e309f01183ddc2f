"""Features of cells as a picture from above."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Reduce = Literal["mean", "max"]


def to_bev(
    feat: Tensor,
    cells: Tensor,
    batch: Tensor,
    batch_size: int,
    shape: tuple[int, int, int],
    z_bins: int | None = None,
    reduce: Reduce = "mean",
) -> Tensor:
    """Cells to a dense map; rows that share a place are reduced, and all of them get gradient.

    Args:
        feat: (M, C).
        cells: (M, 3) int64: x, y, z.
        batch: (M,) int64.
        batch_size: B.
        shape: Cells along z, y and x.
        z_bins: D, bins of equal height; None for one a cell. Must divide the cells along z.
        reduce: "mean" or "max" of the rows of a place; empty places are 0.

    Returns:
        (B, C * D, H, W): channel c of bin d at c * D + d, H along y and W along x, as the sparse
        encoders of the hosts have it.

    Raises:
        ValueError: For another ``reduce``, or rows outside the map.
    """
    if reduce not in get_args(Reduce):
        raise ValueError(f"reduce: expected one of {get_args(Reduce)}, got {reduce!r}")
    depth, height, width = shape
    bins = z_bins or depth
    x, y, z = cells.unbind(1)
    limits = torch.tensor([width, height, depth], device=cells.device)
    outside = ((cells < 0) | (cells >= limits)).any(1) | (batch < 0) | (batch >= batch_size)
    if outside.any():  # else an index would wrap into another row or another scan
        row = int(outside.nonzero()[0])
        raise ValueError(
            f"{int(outside.sum())} rows lie outside a map of {width} x {height} x {depth} cells "
            f"(x, y, z) and {batch_size} scans, the first is cell {cells[row].tolist()} of scan "
            f"{int(batch[row])}"
        )
    places = batch_size * bins * height * width
    place = ((batch * bins + z // (depth // bins)) * height + y) * width + x
    channels = feat.shape[1]
    if reduce == "mean":
        counts = torch.bincount(place, minlength=places).clamp_min(1)
        feat = feat / counts[place][:, None].to(feat.dtype)
        flat = feat.new_zeros(places, channels).index_add(0, place, feat)
    else:
        index = place[:, None].expand(-1, channels)
        flat = feat.new_zeros(places, channels)
        flat = flat.scatter_reduce(0, index, feat, "amax", include_self=False)
    flat = flat.view(batch_size, bins, height, width, channels)
    return flat.permute(0, 4, 1, 2, 3).reshape(batch_size, channels * bins, height, width)
