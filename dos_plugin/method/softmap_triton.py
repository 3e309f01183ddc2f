"""The passes of the softmap loss as matrix products of a block of points, with Triton kernels.

Shape letters in this file: N points, K prototypes, D channels.

A block of logits is written by a matrix product (cuBLAS on a GPU, in TF32 where the process allows
it), read once by a kernel that does all the rest, and forgotten: a scratch block of bounded size.
Sums that run over programs go through partial buffers and are added in a fixed order, so that equal
inputs give equal results. Nothing waits for the device. Kernels that keep the logits in registers
need 14 products in place of these 8; on an H200 they took a quarter more time
(docs/performance.md).

Optional: importing this module needs ``triton``. With ``TRITON_INTERPRET=1`` in the environment
when triton is first imported, the kernels run on CPU tensors (slowly, for tests).
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Elements of the scratch block, points times K. Not tuned by timing.
BLOCK_ELEMENTS = 2**24

# Elements of a tile, which holds whole rows of logits.
TILE = 2**13

# Programs that a pass with one result a prototype is split into: some for each multiprocessor.
PROGRAMS = 512


def supports(tensor: Tensor) -> bool:
    """Whether the kernels run on tensors of this device and dtype."""
    if tensor.dtype not in DTYPES:
        return False
    if not isinstance(_column_sums, triton.JITFunction):  # TRITON_INTERPRET
        return True
    if not tensor.is_cuda or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(tensor.device)[0] >= 8


def softmax_column_sums(feat: Tensor, prototypes: Tensor, temp: float, bias: Tensor) -> Tensor:
    """Sums over points of the softmax over prototypes of ``feat @ prototypes.T / temp + bias``.

    Args:
        feat: (N, D) features.
        prototypes: (K, D).
        temp: Temperature.
        bias: (K,) added to the logits of all points.

    Returns:
        (K,) sums, float64; 0 if there is no point.

    Raises:
        TypeError: If a dtype is not one of ``DTYPES``.
    """
    total = torch.zeros_like(bias, dtype=torch.float64)
    for logits in _blocks(feat, prototypes, temp):
        total += _over_points(logits, bias.float()).sum(dim=0)
    return total


def column_logsumexp(feat: Tensor, prototypes: Tensor, temp: float) -> Tensor:
    """``log(sum(exp(feat @ prototypes.T / temp)))`` over points.

    Args:
        feat: (N, D) features.
        prototypes: (K, D).
        temp: Temperature.

    Returns:
        (K,) float64; -inf if there is no point.

    Raises:
        TypeError: If a dtype is not one of ``DTYPES``.
    """
    log_sum = prototypes.new_full((len(prototypes),), -torch.inf, dtype=torch.float64)
    for logits in _blocks(feat, prototypes, temp):
        log_sum = torch.logaddexp(log_sum, _over_points(logits).logsumexp(dim=0))
    return log_sum


def kl_and_gradients(
    student: Tensor,
    teacher: Tensor,
    student_prototypes: Tensor,
    teacher_prototypes: Tensor,
    student_temp: float,
    teacher_temp: float,
    bias: Tensor,
    log_column: Tensor,
    log_sum: Tensor,
    by_row: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """``sum_k KL(target(:, k) || S(:, k))`` and its gradients (DOS, section 2).

    Args:
        student: (N, D) student features.
        teacher: (N, D) teacher features of the same points.
        student_prototypes: (K, D).
        teacher_prototypes: (K, D).
        student_temp: Temperature of the student's softmaps.
        teacher_temp: Temperature of the teacher's softmaps.
        bias: (K,) and
        log_column: (K,) float64 scaling of the targets: ``log_target = log_softmax(teacher logits
            + bias, over prototypes) - log_column``.
        log_sum: (K,) float64 normaliser of the student's softmaps: ``log S = student logits -
            log_sum``.
        by_row: False: ``log_target = teacher logits + bias - log_column``.

    Returns:
        Scalar, gradient of ``student`` (N, D), gradient of ``student_prototypes`` (K, D), float32.

    Raises:
        TypeError: If a dtype is not one of ``DTYPES``.
    """
    columns = _scalings(bias, log_column, log_sum)
    value = columns.new_empty(len(student))
    grad_student = torch.empty_like(student, dtype=torch.float32)
    grad_prototypes = torch.zeros_like(student_prototypes, dtype=torch.float32)
    inputs, weight = student.detach().float(), student_prototypes.detach().float()
    pairs = zip(
        _blocks(student, student_prototypes, student_temp),
        _blocks(teacher, teacher_prototypes, teacher_temp),
    )
    start = 0
    for logits, target_logits in pairs:
        rows = slice(start, start + len(logits))
        start += len(logits)
        grad = torch.empty_like(logits)
        sizes = _sizes(logits)
        with torch.cuda.device_of(logits):
            _grad_logits[(triton.cdiv(len(logits), sizes["BLOCK_N"]),)](
                logits, target_logits, columns, value[rows], grad, BY_ROW=by_row, **sizes
            )
        grad_student[rows] = grad @ weight
        grad_prototypes += grad.T @ inputs[rows]
    total = value.sum(dtype=torch.float64).float()
    return total, grad_student.div_(student_temp), grad_prototypes.div_(student_temp)


def _blocks(feat: Tensor, prototypes: Tensor, temp: float) -> Iterator[Tensor]:
    """(rows, K) float32 logits of one block of points after the other."""
    for name, tensor in (("features", feat), ("prototypes", prototypes)):
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{name} must be float32, bfloat16 or float16, got {tensor.dtype}")
    weight = (prototypes.detach().float() / temp).T
    rows = max(1, BLOCK_ELEMENTS // max(1, len(prototypes)))
    for block in feat.detach().split(rows):
        if len(block):
            yield block.float() @ weight


def _scalings(bias: Tensor, log_column: Tensor, log_sum: Tensor) -> Tensor:
    """(5, K) float32 of what the kernel needs to know of a prototype, see :func:`_grad_logits`."""
    # What rounding takes from a normaliser is common to all points of a prototype and would add
    # up over them, so it is given back as a factor.
    softmap_scale = (log_sum.float() - log_sum.double()).exp()
    target_scale = (-log_column.double()).exp()
    rows = bias, log_column, target_scale, log_sum, softmap_scale
    return torch.stack([row.float() for row in rows])


def _sizes(logits: Tensor) -> dict[str, int]:
    """What both kernels are launched with."""
    width = triton.next_power_of_2(logits.shape[1])
    height = max(1, TILE // width)
    return {"N": len(logits), "K": logits.shape[1], "BLOCK_N": height, "BLOCK_K": width,
            "num_warps": 8}  # fmt: skip


def _over_points(logits: Tensor, bias: Tensor | None = None) -> Tensor:
    """(splits, K) float64 sums of the softmax where a bias is given, else logsumexps of logits."""
    sizes = _sizes(logits)
    splits = min(PROGRAMS, triton.cdiv(len(logits), sizes["BLOCK_N"]))
    partial = logits.new_empty(splits, logits.shape[1], dtype=torch.float64)
    with torch.cuda.device_of(logits):
        _column_sums[(splits,)](logits, bias, partial, splits, **sizes)
    return partial


# N changes from step to step: no new compilation for its divisors.
_kernel = triton.jit(do_not_specialize=["N", "splits"])


@_kernel
def _column_sums(
    logits, bias, partial, splits,
    N, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One program a share of the points: sums over them of a softmax, or logsumexps."""
    cols = tl.arange(0, BLOCK_K)
    high = tl.full((BLOCK_K,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_K,), tl.float64)
    for tile_id in range(tl.program_id(0), tl.cdiv(N, BLOCK_N), splits):
        rows = tile_id * BLOCK_N + tl.arange(0, BLOCK_N)
        inside = (rows < N)[:, None] & (cols < K)[None, :]
        at = logits + rows.to(tl.int64)[:, None] * K + cols[None, :]
        tile = tl.load(at, mask=inside, other=0.0)
        if bias is None:
            tile = tl.where((rows < N)[:, None], tile, float("-inf"))
            higher = tl.maximum(high, tl.max(tile, axis=0))
            total *= tl.exp(high - higher)
            total += tl.sum(tl.exp(tile - higher[None, :]), axis=0)
            high = higher
        else:
            tile += tl.load(bias + cols, mask=cols < K, other=float("-inf"))[None, :]
            weight = tl.exp(tile - tl.max(tile, axis=1)[:, None])
            softmax = weight / tl.sum(weight, axis=1)[:, None]
            total += tl.sum(tl.where(inside, softmax, 0.0), axis=0)
    if bias is None:
        total = high + tl.log(total)
    tl.store(partial + tl.program_id(0) * K + cols, total, mask=cols < K)


@_kernel
def _grad_logits(
    logits, target_logits, columns, value, grad,
    N, K: tl.constexpr, BY_ROW: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One program some points: their divergences, and ``S - target``."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    cols = tl.arange(0, BLOCK_K)
    col = cols < K
    inside = (rows < N)[:, None] & col[None, :]
    at = rows.to(tl.int64)[:, None] * K + cols[None, :]
    assigned = tl.load(target_logits + at, mask=inside, other=0.0)
    assigned += tl.load(columns + cols, mask=col, other=float("-inf"))[None, :]
    if BY_ROW:
        high = tl.max(assigned, axis=1)
        assigned -= (high + tl.log(tl.sum(tl.exp(assigned - high[:, None]), axis=1)))[:, None]
    log_column = tl.load(columns + K + cols, mask=col, other=0.0)[None, :]
    target_scale = tl.load(columns + 2 * K + cols, mask=col, other=0.0)[None, :]
    log_sum = tl.load(columns + 3 * K + cols, mask=col, other=0.0)[None, :]
    softmap_scale = tl.load(columns + 4 * K + cols, mask=col, other=0.0)[None, :]
    target = tl.exp(assigned) * target_scale
    log_softmap = tl.load(logits + at, mask=inside, other=0.0) - log_sum
    # Differences of logarithms: of two sums, the digits that matter would cancel.
    divergence = target * (assigned - log_column - log_softmap)
    tl.store(value + rows, tl.sum(tl.where(inside, divergence, 0.0), axis=1), mask=rows < N)
    tl.store(grad + at, tl.exp(log_softmap) * softmap_scale - target, mask=inside)
