"""The passes of the softmap loss over points x prototypes as fused Triton kernels.

Shape letters in this file: N points, K prototypes, D channels.

A tile of logits lives in registers between two matrix products and is never written: memory is
O(N D), whatever K. Sums that run over programs go through partial buffers of bounded size and are
added in a fixed order, so that equal inputs give equal results. Nothing waits for the device.

Optional: importing this module needs ``triton``. With ``TRITON_INTERPRET=1`` in the environment
when triton is first imported, the kernels run on CPU tensors (slowly, for tests).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .logits import matmul_precision

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Major ones. For 10 triton 3.7 takes TF32 for "ieee" where features have half precision.
CAPABILITIES = (8, 9, 12)

# Of torch.get_float32_matmul_precision(): what tl.dot makes of float32 operands. Half-precision
# features are float32 operands too; they lose nothing in TF32, prototypes do.
PRECISION = {"highest": "ieee", "high": "tf32", "medium": "tf32"}

# Tiles of N, K and the channels summed at a time, for 8 warps and three stages. Chosen by what the
# compiler says for compute capability 8.0 and 9.0 at D = 256 and more: at most 8 bytes spilled, and
# under the 99 kB of shared memory of the smallest device since 8.0. Not tuned by timing.
SUMS = {key: {"BLOCK_N": 128, "BLOCK_K": 128, "BLOCK_D": 32} for key in ("ieee", "tf32")}
# Gradients hold BLOCK_OUT of their channels; a wider D repeats the logits for each such part.
GRADIENTS = {
    "ieee": {"BLOCK_N": 32, "BLOCK_K": 64, "BLOCK_D": 32},
    "tf32": {"BLOCK_N": 64, "BLOCK_K": 64, "BLOCK_D": 32},
}
BLOCK_OUT = 256

# Programs that a pass with one result a prototype is split into: some for each multiprocessor.
PROGRAMS = 512


def supports(tensor: Tensor) -> bool:
    """Whether the kernels run on tensors of this device and dtype."""
    if tensor.dtype not in DTYPES:
        return False
    if not isinstance(_row_logsumexp, triton.JITFunction):  # TRITON_INTERPRET
        return True
    if not tensor.is_cuda or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(tensor.device)[0] in CAPABILITIES


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
    feat, weight = operands(feat, prototypes, temp)
    if len(feat) == 0:
        return weight.new_zeros(len(weight), dtype=torch.float64)
    bias = bias.to(weight.dtype)
    return _over_points(feat, weight, bias, _row_normaliser(feat, weight, bias)).sum(dim=0)


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
    feat, weight = operands(feat, prototypes, temp)
    if len(feat) == 0:
        return weight.new_full((len(weight),), -torch.inf, dtype=torch.float64)
    return _over_points(feat, weight).logsumexp(dim=0)


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
    student, student_weight = operands(student, student_prototypes, student_temp)
    teacher, teacher_weight = operands(teacher, teacher_prototypes, teacher_temp)
    points, channels = student.shape
    grad_student = torch.zeros_like(student, dtype=torch.float32)
    if points == 0:
        return student_weight.new_zeros(()), grad_student, torch.zeros_like(student_weight)
    bias = bias.to(torch.float32)
    columns = scalings(bias, log_column, log_sum)
    row = _row_normaliser(teacher, teacher_weight, bias) if by_row else bias.new_zeros(len(teacher))
    sizes = _sizes(student, student_weight, GRADIENTS)
    if sizes["PRECISION"] == "ieee":
        student = student.float()  # wide tiles of half-precision operands spill registers
    inputs = student, student_weight, teacher, teacher_weight, row, columns
    sizes["BLOCK_OUT"] = min(BLOCK_OUT, max(16, triton.next_power_of_2(channels)))
    parts = triton.cdiv(channels, sizes["BLOCK_OUT"])
    value = row.new_empty(triton.cdiv(points, sizes["BLOCK_N"]))
    # No more partial sums than points, so that they take no more memory than the features.
    splits = _splits(sizes, parts, most=max(1, points // len(student_weight)))
    partial = row.new_empty(splits, *student_weight.shape)
    with torch.cuda.device_of(student):
        _grad_student[len(value), parts](*inputs, value, grad_student, **sizes)
        grid = triton.cdiv(len(student_weight), sizes["BLOCK_K"]), splits, parts
        _grad_prototypes[grid](*inputs, partial, splits, **sizes)
    return value.sum(dtype=torch.float64).float(), grad_student, partial.sum(dim=0) / student_temp


def operands(feat: Tensor, prototypes: Tensor, temp: float) -> tuple[Tensor, Tensor]:
    """Features as they are, and float32 prototypes over the temperature; both contiguous."""
    for name, tensor in (("features", feat), ("prototypes", prototypes)):
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{name} must be float32, bfloat16 or float16, got {tensor.dtype}")
    return feat.detach().contiguous(), (prototypes.detach().float() / temp).contiguous()


def scalings(bias: Tensor, log_column: Tensor, log_sum: Tensor) -> Tensor:
    """(5, K) float32 of what the kernels need to know of a prototype, see :func:`divergence`."""
    # What rounding takes from a normaliser is common to all points of a prototype and would add
    # up over them, so it is given back as a factor.
    softmap_scale = (log_sum.float() - log_sum.double()).exp()
    target_scale = (-log_column.double()).exp()
    rows = bias, log_column, target_scale, log_sum, softmap_scale
    return torch.stack([row.float() for row in rows])


def _sizes(feat: Tensor, weight: Tensor, tiles: dict[str, dict[str, int]]) -> dict:
    """The arguments that all kernels share, and how to launch them."""
    precision = PRECISION[matmul_precision()]
    sizes = {"N": len(feat), "K": len(weight), "D": feat.shape[1], "PRECISION": precision}
    return {**sizes, **tiles[precision], "num_warps": 8, "num_stages": 3}


def _splits(sizes: dict, parts: int = 1, most: int = PROGRAMS) -> int:
    """Programs that share the points of a tile of prototypes."""
    tiles = triton.cdiv(sizes["K"], sizes["BLOCK_K"]) * parts
    return min(triton.cdiv(PROGRAMS, tiles), triton.cdiv(sizes["N"], sizes["BLOCK_N"]), most)


def _row_normaliser(feat: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(N,) logsumexp over prototypes of the logits plus bias."""
    row = weight.new_empty(len(feat))
    sizes = _sizes(feat, weight, SUMS)
    with torch.cuda.device_of(feat):
        _row_logsumexp[(triton.cdiv(len(feat), sizes["BLOCK_N"]),)](
            feat, weight, bias, row, **sizes
        )
    return row


def _over_points(
    feat: Tensor, weight: Tensor, bias: Tensor | None = None, row: Tensor | None = None
) -> Tensor:
    """(splits, K) sums of the softmax where its scaling is given, else logsumexps of logits."""
    sizes = _sizes(feat, weight, SUMS)
    partial = weight.new_empty(_splits(sizes), len(weight), dtype=torch.float64)
    with torch.cuda.device_of(feat):
        _column_sums[triton.cdiv(len(weight), sizes["BLOCK_K"]), len(partial)](
            feat, weight, bias, row, partial, len(partial), **sizes
        )
    return partial


# N changes from step to step: no new compilation for its divisors.
kernel = triton.jit(do_not_specialize=["N", "splits"])


@triton.jit
def _logits(feat, weight, rows, cols, N, K, D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION):
    """(rows, cols) tile of ``feat @ weight.T``; 0 outside."""
    tile = tl.zeros((rows.shape[0], cols.shape[0]), tl.float32)
    for start in range(0, D, BLOCK_D):
        dims = start + tl.arange(0, BLOCK_D)
        at_row = feat + rows.to(tl.int64)[:, None] * D + dims[None, :]
        at_col = weight + cols[:, None] * D + dims[None, :]
        x = tl.load(at_row, mask=(rows < N)[:, None] & (dims < D)[None, :], other=0.0)
        w = tl.load(at_col, mask=(cols < K)[:, None] & (dims < D)[None, :], other=0.0)
        tile = tl.dot(x.to(tl.float32), tl.trans(w), tile, input_precision=PRECISION)
    return tile


@kernel
def _row_logsumexp(
    feat, weight, bias, out,
    N, K: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One program a tile of points: logsumexp over all prototypes."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    high = tl.full((BLOCK_N,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, K, BLOCK_K):
        cols = start + tl.arange(0, BLOCK_K)
        tile = _logits(feat, weight, rows, cols, N, K, D, BLOCK_D, PRECISION)
        tile += tl.load(bias + cols, mask=cols < K, other=float("-inf"))[None, :]
        higher = tl.maximum(high, tl.max(tile, axis=1))
        total = total * tl.exp(high - higher) + tl.sum(tl.exp(tile - higher[:, None]), axis=1)
        high = higher
    tl.store(out + rows, high + tl.log(total), mask=rows < N)


@kernel
def _column_sums(
    feat, weight, bias, row, partial, splits,
    N, K: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One program a tile of prototypes and a share of the points; neighbours share the points."""
    cols = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    high = tl.full((BLOCK_K,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_K,), tl.float64)
    for tile_id in range(tl.program_id(1), tl.cdiv(N, BLOCK_N), splits):
        rows = tile_id * BLOCK_N + tl.arange(0, BLOCK_N)
        tile = _logits(feat, weight, rows, cols, N, K, D, BLOCK_D, PRECISION)
        if row is None:
            tile = tl.where((rows < N)[:, None], tile, float("-inf"))
            higher = tl.maximum(high, tl.max(tile, axis=0))
            total *= tl.exp(high - higher)
            total += tl.sum(tl.exp(tile - higher[None, :]), axis=0)
            high = higher
        else:
            tile += tl.load(bias + cols, mask=cols < K, other=0.0)[None, :]
            tile -= tl.load(row + rows, mask=rows < N, other=float("inf"))[:, None]
            total += tl.sum(tl.exp(tile), axis=0)
    if row is None:
        total = high + tl.log(total)
    tl.store(partial + tl.program_id(1) * K + cols, total, mask=cols < K)


@triton.jit
def divergence(log_assigned, logits, columns, cols, K):
    """``target * log(target / S)`` and ``S - target`` of tiles of both sides' logits.

    ``log_assigned`` are the teacher's, with bias and the normaliser of its row.
    """
    col = cols < K
    log_column = tl.load(columns + K + cols, mask=col, other=0.0)[None, :]
    target_scale = tl.load(columns + 2 * K + cols, mask=col, other=0.0)[None, :]
    log_sum = tl.load(columns + 3 * K + cols, mask=col, other=0.0)[None, :]
    softmap_scale = tl.load(columns + 4 * K + cols, mask=col, other=0.0)[None, :]
    target = tl.exp(log_assigned) * target_scale
    log_softmap = logits - log_sum
    # Differences of logarithms: of two sums, the digits that matter would cancel.
    value = target * (log_assigned - log_column - log_softmap)
    return value, tl.exp(log_softmap) * softmap_scale - target


@triton.jit
def _divergence(
    student, student_weight, teacher, teacher_weight, row, columns,
    rows, cols, N, K, D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION,
):  # fmt: skip
    """Tiles of ``target * log(target / S)`` and of ``S - target``; 0 outside."""
    inside, col = (rows < N)[:, None] & (cols < K)[None, :], cols < K
    log_assigned = _logits(teacher, teacher_weight, rows, cols, N, K, D, BLOCK_D, PRECISION)
    log_assigned += tl.load(columns + cols, mask=col, other=0.0)[None, :]
    log_assigned -= tl.load(row + rows, mask=rows < N, other=0.0)[:, None]
    logits = _logits(student, student_weight, rows, cols, N, K, D, BLOCK_D, PRECISION)
    value, grad = divergence(log_assigned, logits, columns, cols, K)
    return tl.where(inside, value, 0.0), tl.where(inside, grad, 0.0)


@kernel
def _grad_student(
    student, student_weight, teacher, teacher_weight, row, columns, value, grad,
    N, K: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_OUT: tl.constexpr,
):  # fmt: skip
    """One program a tile of points and a part of the channels; the first part sums the value."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    dims = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    total = tl.zeros((BLOCK_N,), tl.float32)
    out = tl.zeros((BLOCK_N, BLOCK_OUT), tl.float32)
    for start in range(0, K, BLOCK_K):
        cols = start + tl.arange(0, BLOCK_K)
        tile, grad_logits = _divergence(
            student, student_weight, teacher, teacher_weight, row, columns,
            rows, cols, N, K, D, BLOCK_D, PRECISION,
        )  # fmt: skip
        total += tl.sum(tile, axis=1)
        at = student_weight + cols[:, None] * D + dims[None, :]
        w = tl.load(at, mask=(cols < K)[:, None] & (dims < D)[None, :], other=0.0)
        out = tl.dot(grad_logits, w, out, input_precision=PRECISION)
    at = grad + rows.to(tl.int64)[:, None] * D + dims[None, :]
    tl.store(at, out, mask=(rows < N)[:, None] & (dims < D)[None, :])
    if tl.program_id(1) == 0:
        tl.store(value + tl.program_id(0), tl.sum(total, axis=0))


@kernel
def _grad_prototypes(
    student, student_weight, teacher, teacher_weight, row, columns, partial, splits,
    N, K: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_OUT: tl.constexpr,
):  # fmt: skip
    """One program a tile of prototypes, a share of the points and a part of the channels."""
    cols = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    dims = tl.program_id(2) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    out = tl.zeros((BLOCK_K, BLOCK_OUT), tl.float32)
    for tile_id in range(tl.program_id(1), tl.cdiv(N, BLOCK_N), splits):
        rows = tile_id * BLOCK_N + tl.arange(0, BLOCK_N)
        _, grad_logits = _divergence(
            student, student_weight, teacher, teacher_weight, row, columns,
            rows, cols, N, K, D, BLOCK_D, PRECISION,
        )  # fmt: skip
        at = student + rows.to(tl.int64)[:, None] * D + dims[None, :]
        x = tl.load(at, mask=(rows < N)[:, None] & (dims < D)[None, :], other=0.0)
        out = tl.dot(tl.trans(grad_logits), x.to(tl.float32), out, input_precision=PRECISION)
    at = partial + (tl.program_id(1).to(tl.int64) * K + cols)[:, None] * D + dims[None, :]
    tl.store(at, out, mask=(cols < K)[:, None] & (dims < D)[None, :])
