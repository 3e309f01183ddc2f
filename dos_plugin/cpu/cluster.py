"""Stand-ins for the functions the host takes from ``torch_cluster`` and ``torch_geometric``."""

import torch
from torch import Tensor

from dos_plugin.cpu import scatter as torch_scatter
from dos_plugin.cpu.pointops import knn_query

__all__ = ["grid_cluster", "knn", "scatter", "voxel_grid"]


def knn(
    x: Tensor,
    y: Tensor,
    k: int,
    batch_x: Tensor | None = None,
    batch_y: Tensor | None = None,
) -> Tensor:
    """Rows of ``x`` nearest to each row of ``y`` within the same sample.

    Args:
        x: (n, 3) searched coordinates.
        y: (m, 3) queries.
        k: neighbours per query.
        batch_x: (n,) sorted sample numbers; one sample if None.
        batch_y: (m,) sorted sample numbers.

    Returns:
        (2, pairs) int64: row of ``y``, row of ``x``; queries in order, nearest first.
    """
    batch_x = x.new_zeros(len(x), dtype=torch.int64) if batch_x is None else batch_x
    batch_y = y.new_zeros(len(y), dtype=torch.int64) if batch_y is None else batch_y
    samples = int(max(batch_x.max(), batch_y.max())) + 1
    offset, new_offset = (
        torch.bincount(batch, minlength=samples).cumsum(0) for batch in (batch_x, batch_y)
    )
    index, _ = knn_query(k, x, offset, y, new_offset)
    query = torch.arange(len(y), device=y.device)[:, None].expand(-1, k)
    found = index >= 0
    return torch.stack([query[found], index[found].long()])


def grid_cluster(
    pos: Tensor, size: Tensor, start: Tensor | None = None, end: Tensor | None = None
) -> Tensor:
    """Number of the grid cell each row falls into.

    Args:
        pos: (n, d) coordinates.
        size: (d,) cell sizes, unit of ``pos``.
        start: (d,) corner of the grid; the smallest coordinates if None.
        end: (d,) opposite corner; the largest coordinates if None.

    Returns:
        (n,) int64; the first coordinate varies fastest.
    """
    start = pos.amin(0) if start is None else start
    end = pos.amax(0) if end is None else end
    cells = ((end - start) / size).long() + 1
    stride = torch.cat([cells.new_ones(1), cells.cumprod(0)[:-1]])
    return (((pos - start) / size).long() * stride).sum(1)


def voxel_grid(
    pos: Tensor,
    size: float | list[float] | Tensor,
    batch: Tensor | None = None,
    start: float | list[float] | Tensor | None = None,
    end: float | list[float] | Tensor | None = None,
) -> Tensor:
    """``grid_cluster`` that keeps samples apart; ``batch`` (n,) holds the sample numbers."""
    batch = pos.new_zeros(len(pos), dtype=torch.int64) if batch is None else batch
    dimensions = pos.shape[1]

    def corner(value: float | list[float] | Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=pos.dtype, device=pos.device).expand(dimensions)

    def with_sample(value: Tensor, sample: float) -> Tensor:
        return torch.cat([value, value.new_full((1,), sample)])

    return grid_cluster(
        torch.cat([pos, batch.to(pos.dtype)[:, None]], dim=1),
        with_sample(corner(size), 1.0),
        None if start is None else with_sample(corner(start), 0.0),
        None if end is None else with_sample(corner(end), float(batch.max())),
    )


def scatter(
    src: Tensor, index: Tensor, dim: int = 0, dim_size: int | None = None, reduce: str = "sum"
) -> Tensor:
    """torch_geometric's spelling of ``torch_scatter.scatter``: dimension 0 unless told."""
    return torch_scatter.scatter(src, index, dim, None, dim_size, reduce)
