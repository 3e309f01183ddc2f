"""The passes of the softmap loss as library products of a block of points, with fused kernels.

Shape letters in this file: N points, K prototypes, D channels.

A block of logits is written by a matrix product (cuBLAS on a GPU), read once by a Triton kernel
that does all the rest, and forgotten: 8 products of N x K x D in place of the 14 of
``softmap_triton.py``, for a scratch block of bounded size. Operands of the products are float32
(TF32 where the process allows it), float16 or bfloat16; sums are float32.

Optional: importing this module needs ``triton``, see ``softmap_triton.py``.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .softmap_triton import PROGRAMS, divergence, kernel, operands, scalings, supports

# Elements of the scratch block, points times K. Not tuned by timing.
BLOCK_ELEMENTS = 2**24

# Elements of a tile, which holds whole rows of logits.
TILE = 2**13

# Entries of S - target are in [-1, 1] and most of them near 1/N: times this, float16 holds them.
GRADIENT_SCALE = 2.0**15


class Kernels:
    """The functions of ``softmap_triton.py``, which see, with operands of the given dtype.

    Args:
        dtype: Of the operands of the products: float32, float16 or bfloat16. Features and
            prototypes have length one: float16 rounds them as TF32 does, bfloat16 eight times as
            much.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def supports(self, tensor: Tensor) -> bool:
        """Whether the kernels run on tensors of this device and dtype."""
        return supports(tensor)

    def softmax_column_sums(
        self, feat: Tensor, prototypes: Tensor, temp: float, bias: Tensor
    ) -> Tensor:
        """(K,) float64 sums over points of the softmax over prototypes of logits plus bias."""
        total = torch.zeros_like(bias, dtype=torch.float64)
        for logits in self._blocks(feat, prototypes, temp):
            total += _over_points(logits, bias.float()).sum(dim=0)
        return total

    def column_logsumexp(self, feat: Tensor, prototypes: Tensor, temp: float) -> Tensor:
        """(K,) float64 ``log(sum(exp(logits)))`` over points; -inf if there is no point."""
        log_sum = prototypes.new_full((len(prototypes),), -torch.inf, dtype=torch.float64)
        for logits in self._blocks(feat, prototypes, temp):
            log_sum = torch.logaddexp(log_sum, _over_points(logits).logsumexp(dim=0))
        return log_sum

    def kl_and_gradients(
        self,
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
        """Sum of divergences (scalar), gradients of student (N, D) and its prototypes (K, D)."""
        columns = scalings(bias, log_column, log_sum)
        value = columns.new_empty(len(student))
        grad_student = torch.empty_like(student, dtype=torch.float32)
        grad_prototypes = torch.zeros_like(student_prototypes, dtype=torch.float32)
        inputs = student.detach().to(self.dtype)
        weight = student_prototypes.detach().to(self.dtype)
        scale = GRADIENT_SCALE if self.dtype == torch.float16 else 1.0
        pairs = zip(
            self._blocks(student, student_prototypes, student_temp),
            self._blocks(teacher, teacher_prototypes, teacher_temp),
        )
        start = 0
        for logits, target_logits in pairs:
            rows = slice(start, start + len(logits))
            start += len(logits)
            grad = torch.empty_like(logits, dtype=self.dtype)
            sizes = _sizes(logits)
            with torch.cuda.device_of(logits):
                _grad_logits[(triton.cdiv(len(logits), sizes["BLOCK_N"]),)](
                    logits, target_logits, columns, value[rows], grad, scale, BY_ROW=by_row, **sizes
                )
            grad_student[rows] = product(grad, weight)
            grad_prototypes += product(grad.T, inputs[rows])
        factor = 1 / (scale * student_temp)
        total = value.sum(dtype=torch.float64).float()
        return total, grad_student.mul_(factor), grad_prototypes.mul_(factor)

    def _blocks(self, feat: Tensor, prototypes: Tensor, temp: float):
        """(rows, K) float32 logits of one block of points after the other."""
        feat, weight = operands(feat, prototypes, temp)
        weight = weight.to(self.dtype).T
        rows = max(1, BLOCK_ELEMENTS // max(1, len(prototypes)))
        for start in range(0, len(feat), rows):
            yield product(feat[start : start + rows].to(self.dtype), weight)


def product(x: Tensor, y: Tensor) -> Tensor:
    """``x @ y`` in float32, of operands of one dtype."""
    if x.dtype == torch.float32:
        return x @ y
    if x.is_cuda:
        return torch.mm(x, y, out_dtype=torch.float32)
    return x.float() @ y.float()


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


@kernel
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


@kernel
def _grad_logits(
    logits, target_logits, columns, value, grad, scale,
    N, K: tl.constexpr, BY_ROW: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One program some points: their divergences, and ``scale * (S - target)``."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    cols = tl.arange(0, BLOCK_K)
    inside = (rows < N)[:, None] & (cols < K)[None, :]
    at = rows.to(tl.int64)[:, None] * K + cols[None, :]
    assigned = tl.load(target_logits + at, mask=inside, other=0.0)
    assigned += tl.load(columns + cols, mask=cols < K, other=float("-inf"))[None, :]
    if BY_ROW:
        high = tl.max(assigned, axis=1)
        assigned -= (high + tl.log(tl.sum(tl.exp(assigned - high[:, None]), axis=1)))[:, None]
    tile = tl.load(logits + at, mask=inside, other=0.0)
    tile, grad_logits = divergence(assigned, tile, columns, cols, K)
    tl.store(value + rows, tl.sum(tl.where(inside, tile, 0.0), axis=1), mask=rows < N)
    tl.store(grad + at, (grad_logits * scale).to(grad.dtype.element_ty), mask=inside)
