"""Plain-torch stand-ins for the functions of ``torch_scatter`` that the host calls.

Values, results for empty segments (0) and gradients follow torch_scatter: the gradient of ``min``
and ``max`` goes to one element per segment (the first that attains it), never spread over ties.
"""

import torch
from torch import Tensor

__all__ = [
    "scatter",
    "scatter_add",
    "scatter_max",
    "scatter_mean",
    "scatter_min",
    "scatter_softmax",
    "scatter_sum",
    "segment_coo",
    "segment_csr",
]


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduces all elements of ``src`` that share an index along ``dim``.

    Args:
        src: values, any shape.
        index: int64 target positions; one per slice along ``dim`` (1-D) or one per element.
        dim: dimension that is reduced.
        out: must be None; writing into a given tensor is not implemented.
        dim_size: length of ``dim`` in the result; the largest index + 1 if None.
        reduce: "sum", "add", "mean", "min" or "max".

    Returns:
        Shape of ``src`` with ``dim_size`` in place of dimension ``dim``; 0 where no element fell.

    Raises:
        NotImplementedError: ``out`` is given.
        ValueError: unknown ``reduce``.
    """
    if reduce in ("sum", "add"):
        return scatter_sum(src, index, dim, out, dim_size)
    if reduce == "mean":
        return scatter_mean(src, index, dim, out, dim_size)
    if reduce in ("min", "max"):
        return _extremum(src, index, dim, out, dim_size, reduce)[0]
    raise ValueError(f"reduce must be 'sum', 'add', 'mean', 'min' or 'max', got {reduce!r}")


def scatter_sum(
    src: Tensor, index: Tensor, dim: int = -1, out: None = None, dim_size: int | None = None
) -> Tensor:
    """``scatter`` with reduce="sum"."""
    _refuse_out(out)
    index, shape = _expand(src, index, dim, dim_size)
    return src.new_zeros(shape).scatter_add(dim, index, src)


scatter_add = scatter_sum


def scatter_mean(
    src: Tensor, index: Tensor, dim: int = -1, out: None = None, dim_size: int | None = None
) -> Tensor:
    """``scatter`` with reduce="mean"; integers are divided rounding down."""
    total = scatter_sum(src, index, dim, out, dim_size)
    index, shape = _expand(src, index, dim, dim_size)
    ones = torch.ones((), dtype=torch.int64, device=src.device).expand(src.shape)
    count = torch.zeros(shape, dtype=torch.int64, device=src.device).scatter_add(dim, index, ones)
    count = count.clamp(min=1).to(src.dtype)
    if src.is_floating_point():
        return total / count
    return torch.div(total, count, rounding_mode="floor")


def scatter_min(
    src: Tensor, index: Tensor, dim: int = -1, out: None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Smallest element per index and its position along ``dim`` (``src.size(dim)`` if empty)."""
    return _extremum(src, index, dim, out, dim_size, "min")


def scatter_max(
    src: Tensor, index: Tensor, dim: int = -1, out: None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Largest element per index and its position along ``dim`` (``src.size(dim)`` if empty)."""
    return _extremum(src, index, dim, out, dim_size, "max")


def scatter_softmax(
    src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None
) -> Tensor:
    """Softmax among the elements that share an index; shape of ``src``."""
    expanded, _ = _expand(src, index, dim, dim_size)
    largest = _extremum(src.detach(), index, dim, None, dim_size, "max")[0]
    weight = (src - largest.gather(dim, expanded)).exp()
    return weight / scatter_sum(weight, index, dim, None, dim_size).gather(dim, expanded)


def segment_coo(
    src: Tensor,
    index: Tensor,
    out: None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """``scatter`` along the last dimension of ``index``, whose values are sorted."""
    return scatter(src, index, index.dim() - 1, out, dim_size, reduce)


def segment_csr(src: Tensor, indptr: Tensor, out: None = None, reduce: str = "sum") -> Tensor:
    """Reduces consecutive rows: row i of the result covers ``src[indptr[i]:indptr[i + 1]]``.

    Args:
        src: (n, ...) values.
        indptr: (m + 1,) int64 ascending row borders.
        out: must be None.
        reduce: as in ``scatter``.

    Returns:
        (m, ...) values; 0 for empty segments.

    Raises:
        NotImplementedError: ``out`` is given or ``indptr`` has more than one dimension.
    """
    if indptr.dim() != 1:
        raise NotImplementedError(
            f"torch_scatter.segment_csr: the CPU stand-in takes a 1-D indptr, got "
            f"{indptr.dim()} dimensions; install torch-scatter for this call"
        )
    lengths = indptr.diff()
    index = torch.repeat_interleave(torch.arange(len(lengths), device=src.device), lengths)
    rows = src[int(indptr[0]) : int(indptr[-1])]
    return scatter(rows, index, 0, out, len(lengths), reduce)


def _extremum(
    src: Tensor, index: Tensor, dim: int, out: None, dim_size: int | None, which: str
) -> tuple[Tensor, Tensor]:
    _refuse_out(out)
    index, shape = _expand(src, index, dim, dim_size)
    size = src.size(dim)
    if size == 0:
        return src.new_zeros(shape), torch.zeros(shape, dtype=torch.int64, device=src.device)
    values = src.detach()
    best = values.new_zeros(shape).scatter_reduce(
        dim, index, values, f"a{which}", include_self=False
    )
    # NaN compares unequal to itself: let it win, so that it shows in the result.
    attains = (values == best.gather(dim, index)) | (values != values)
    view = [1] * src.dim()
    view[dim] = size
    position = torch.arange(size, device=src.device).view(view).expand(src.shape)
    position = torch.where(attains, position, size)
    winner = torch.full(shape, size, dtype=torch.int64, device=src.device)
    winner = winner.scatter_reduce(dim, index, position, "amin")
    result = src.gather(dim, winner.clamp(max=size - 1))
    return torch.where(winner == size, torch.zeros_like(result), result), winner


def _expand(src: Tensor, index: Tensor, dim: int, dim_size: int | None) -> tuple[Tensor, list[int]]:
    """Brings ``index`` to the shape of ``src``; also gives the shape of the result."""
    if dim_size is None:
        dim_size = int(index.max()) + 1 if index.numel() else 0
    shape = list(src.shape)
    shape[dim] = dim_size
    if index.dim() == 1:
        view = [1] * src.dim()
        view[dim] = -1
        index = index.view(view)
    else:
        index = index.view(list(index.shape) + [1] * (src.dim() - index.dim()))
    return index.long().expand(src.shape), shape


def _refuse_out(out: Tensor | None) -> None:
    if out is not None:
        raise NotImplementedError(
            "torch_scatter: the CPU stand-in does not write into `out`; install torch-scatter "
            "for this call"
        )
