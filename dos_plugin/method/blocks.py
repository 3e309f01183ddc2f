"""The passes over points x prototypes that the loss consists of, in blocks of points.

Shape letters in this file: N points, K prototypes, D channels. Logits are cosines over a
temperature. No pass keeps an N x K tensor: a block of logits is made, used and forgotten.

On a GPU whose matrix products may use TF32 (``torch.set_float32_matmul_precision("high")``) and
with triton installed, the kernels of ``softmap_triton.py`` do what is not a product.
:func:`set_kernels` chooses.
"""

import functools
import importlib
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .logits import Logits, matmul_precision, product


class Divergence(NamedTuple):
    """A sum of Kullback-Leibler divergences over prototypes, and its gradients."""

    value: Tensor  # scalar
    grad_student: Tensor  # (N, D)
    grad_prototypes: Tensor  # (K, D), of the student's prototypes


def softmax_column_sums(logits: Logits, bias: Tensor) -> Tensor:
    """(K,) float64 sums over points of the softmax over prototypes of ``logits + bias``."""
    if fused := _fused(logits.feat):
        return fused.softmax_column_sums(logits.feat, logits.prototypes, logits.temp, bias)
    total = torch.zeros_like(bias, dtype=torch.float64)
    for rows in logits.blocks():
        total += torch.softmax(logits.block(rows, bias), dim=1).sum(dim=0)
    return total


def column_logsumexp(logits: Logits) -> Tensor:
    """(K,) float64 ``log(sum(exp(logits)))`` over points; ``-inf`` without points."""
    if fused := _fused(logits.feat):
        return fused.column_logsumexp(logits.feat, logits.prototypes, logits.temp)
    log_sum = logits.prototypes.new_full((len(logits.prototypes),), -torch.inf, dtype=torch.float64)
    for rows in logits.blocks():
        log_sum = torch.logaddexp(log_sum, logits.block(rows).logsumexp(dim=0).double())
    return log_sum


def kl_and_gradients(
    student: Logits,
    teacher: Logits,
    bias: Tensor,
    log_column: Tensor,
    log_sum: Tensor,
    by_row: bool = True,
) -> Divergence:
    """``sum_k KL(target(:, k) || S(:, k))`` and its gradients, in one pass (DOS, section 2).

    Args:
        student: N points.
        teacher: The same N points.
        bias: (K,) and
        log_column: (K,) float64, the scaling of the targets, see
            :class:`~dos_plugin.method.zipf_sinkhorn.Scaling`.
        log_sum: (K,) float64 normaliser of the student's softmaps, see :func:`column_logsumexp`.
        by_row: Whether the targets' rows are scaled, also of the Scaling.
    """
    if fused := _fused(student.feat):
        features = student.feat, teacher.feat, student.prototypes, teacher.prototypes
        scaling = bias, log_column, log_sum, by_row
        return Divergence(*fused.kl_and_gradients(*features, student.temp, teacher.temp, *scaling))
    dtype = bias.dtype
    # What rounding takes from a normaliser is common to all points of a prototype and would add
    # up over them, so it is given back as a factor.
    shift = -log_sum.to(dtype)
    softmap_scale = (-shift - log_sum).exp().to(dtype)
    target_scale = (-log_column).exp().to(dtype)
    log_column = log_column.to(dtype)
    columns = (student.prototypes.T / student.temp).contiguous()

    value = torch.zeros_like(log_sum[:1])
    grad_student = torch.empty_like(student.feat, dtype=dtype)
    grad_prototypes = torch.zeros_like(student.prototypes.T)
    for rows in student.blocks():
        log_target = teacher.block(rows, bias)
        if by_row:
            log_target = torch.log_softmax(log_target, dim=1)
        log_softmap = student.block(rows, shift)
        target = log_target.exp().mul_(target_scale)
        log_target.sub_(log_column).sub_(log_softmap)
        value += log_target.mul_(target).sum()  # pairwise, unlike a dot product
        grad_logits = log_softmap.exp_().mul_(softmap_scale).sub_(target)
        grad_student[rows] = product(grad_logits, columns)
        grad_prototypes += product(student.rows(rows).T, grad_logits.T)
    return Divergence(value[0].to(dtype), grad_student, grad_prototypes.T / student.temp)


TRITON = f"{__package__}.softmap_triton"  # imported where triton is installed

# What may make the passes on a GPU.
KERNELS = ("auto", "plain", "triton")
_chosen = "auto"


def set_kernels(name: str) -> str:
    """Choose what makes the passes on GPUs, in this process.

    Args:
        name: One of ``KERNELS``. ``"auto"``: Triton's kernels where TF32 is allowed and they pass
            a trial at first use, else the plain passes of this file. ``"triton"``: those, or fail.

    Returns:
        The former choice.

    Raises:
        ValueError: If there is no such name.
    """
    global _chosen
    if name not in KERNELS:
        raise ValueError(f"kernels must be one of {KERNELS}, got {name!r}")
    former, _chosen = _chosen, name
    return former


def _fused(feat: Tensor) -> Any:
    """The kernels chosen, where they can be used for these features, else None."""
    if feat.device.type != "cuda" or feat.dtype == torch.float64 or _chosen == "plain":
        return None
    if _chosen == "triton":
        return importlib.import_module(TRITON)
    if matmul_precision() == "highest":  # not measured there
        return None
    kernels = _kernels(feat.device)
    return kernels if kernels and kernels.supports(feat) else None


@functools.cache
def _kernels(device: torch.device) -> Any:
    """Triton's kernels, tried out once on a device; None where they are of no use."""
    try:
        kernels = importlib.import_module(TRITON)
        _try_out(kernels, device)
    except ModuleNotFoundError:  # no triton
        return None
    except Exception as error:  # of a compiler that meets another device or version, anything
        message = f"DOS: no fused loss on {device}, the plain one is used: {error}"
        warnings.warn(message, stacklevel=2)
        return None
    return kernels


def _try_out(kernels: Any, device: torch.device) -> None:
    """Raise ValueError unless the kernels agree with this file on a small problem."""
    generator = torch.Generator().manual_seed(0)
    student, teacher, prototypes = (
        torch.nn.functional.normalize(torch.randn(n, 48, generator=generator), dim=1).to(device)
        for n in (300, 300, 40)
    )
    if not kernels.supports(student):
        return
    logits = Logits(student.double(), prototypes, 0.1), Logits(teacher.double(), prototypes, 0.07)
    bias = torch.zeros_like(prototypes[:, 0])
    sums = softmax_column_sums(logits[1], bias.double())
    log_sum = column_logsumexp(logits[0])
    exact = [sums, log_sum, *kl_and_gradients(*logits, bias.double(), sums.log(), log_sum)]
    features = student, teacher, prototypes, prototypes
    ours = [
        kernels.softmax_column_sums(teacher, prototypes, 0.07, bias),
        kernels.column_logsumexp(student, prototypes, 0.1),
        *kernels.kl_and_gradients(*features, 0.1, 0.07, bias, sums.log(), log_sum),
    ]
    errors = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, exact)]
    if not all(error < 5e-3 for error in errors):  # NaN is not
        raise ValueError(f"the kernels are off by {errors} of the largest values")
