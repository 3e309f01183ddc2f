"""The softmap loss (DOS, section 2): student softmaps of prototypes match the teacher's.

Shape letters in this file: N points, K prototypes, D channels.

``L = 1/K sum_k KL(target(:, k) || S(:, k))`` with
``S(i, k) = exp(s_ik) / sum_j exp(s_jk)`` and ``s = cos / student_temp``. Since
``dL/ds_ik = (S_ik - target_ik) / K``, the gradients of features and prototypes come out of the same
pass over blocks of points as the loss, and no N x K tensor is kept.

Across ranks the loss is that of the whole batch: column sums of teacher and student run over all
ranks, and a rank returns ``world_size`` times its share of the sum, so that the *mean* over ranks,
which is what DistributedDataParallel takes of the gradients, is the loss of one process holding
the whole batch.
"""

import torch
from torch import Tensor

from .blocks import column_logsumexp, kl_and_gradients
from .distributed import all_reduce_logsumexp, all_reduce_sum, world_size
from .logits import Logits
from .options import check_number
from .zipf_sinkhorn import TEMP, ZipfSinkhorn


def softmap_loss(
    student: Tensor,
    teacher: Tensor,
    student_prototypes: Tensor,
    teacher_prototypes: Tensor,
    sinkhorn: ZipfSinkhorn,
    student_temp: float,
    teacher_temp: float,
    offset: Tensor | None = None,
    block_size: int | None = None,
) -> Tensor:
    """Exact softmap loss in blocks of points, O(N D + block K) extra memory.

    Row i of ``student`` and of ``teacher`` are the same point. Works in float32 (float64 for
    float64 inputs) whatever the autocast state. Gradients reach ``student`` and
    ``student_prototypes`` only. With a process group every rank must call it, also with N = 0.

    Args:
        student: (N, D) L2-normalised student features.
        teacher: (N, D) L2-normalised teacher features.
        student_prototypes: (K, D) L2-normalised.
        teacher_prototypes: (K, D) L2-normalised; usually the same tensor.
        sinkhorn: Regulariser of the teacher's softmaps; its scope is the loss's scope.
        student_temp: Temperature of the student's softmaps, > 0.
        teacher_temp: Temperature of the teacher's softmaps, > 0.
        offset: (B,) cumulative point counts of the clouds; needed for ``scope="cloud"``.
        block_size: Points in a block (default: see :mod:`.blocks`).

    Returns:
        Scalar loss; 0 with zero gradients if there is no point anywhere.

    Raises:
        ValueError: If shapes disagree, a temperature is not > 0, or the offset is missing.
    """
    check_shapes(student, teacher, student_prototypes, teacher_prototypes)
    check_number("student_temp", student_temp, TEMP)
    check_number("teacher_temp", teacher_temp, TEMP)
    with torch.autocast(student.device.type, enabled=False):
        # Converted here, so that the gradients of several clouds are added before any rounding.
        weight = student_prototypes.to(torch.promote_types(student.dtype, torch.float32))
        sets = _sets(student, teacher, sinkhorn, offset)
        losses = [
            _SoftmapKL.apply(
                points,
                weight,
                Logits(targets, teacher_prototypes, teacher_temp, block_size),
                sinkhorn,
                student_temp,
                block_size,
            )
            for points, targets in sets
        ]
        if not losses:  # no cloud on this rank: a zero with a graph, of nothing that can overflow
            losses = [student[:0].to(weight.dtype).sum() + weight[:0].sum()]
        total = torch.stack(losses).sum()
        if sinkhorn.scope == "cloud":  # mean over the clouds of all ranks
            filled = float(sum(len(points) > 0 for points, _ in sets))
            count = all_reduce_sum(torch.full((), filled, device=student.device))
            total = total * (world_size() / count.clamp_min(1))
        return total


class _SoftmapKL(torch.autograd.Function):
    """Loss of one set of points, with the gradients computed beside it."""

    @staticmethod
    def forward(ctx, student, prototypes, teacher_logits, sinkhorn, student_temp, block_size):
        across_ranks = sinkhorn.scope == "batch"
        student_logits = Logits(student, prototypes, student_temp, block_size)
        scaling = sinkhorn.scaling(teacher_logits)
        log_sum = column_logsumexp(student_logits)
        if across_ranks:
            log_sum = all_reduce_logsumexp(log_sum)
        kl, grad_student, grad_weight = kl_and_gradients(
            student_logits,
            teacher_logits,
            scaling.bias,
            scaling.log_column,
            log_sum,
            scaling.by_row,
        )
        ctx.share = (world_size() if across_ranks else 1) / len(prototypes)
        ctx.save_for_backward(grad_student, grad_weight)
        ctx.student_dtype = student.dtype
        return kl * ctx.share

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        grad_student, grad_weight = ctx.saved_tensors
        grad = grad * ctx.share
        # N x D is the largest tensor of the loss: a second one only where this one must stay.
        scaled = grad_student * grad if _keeps_graph() else grad_student.mul_(grad)
        return (
            scaled.to(ctx.student_dtype),  # only after the factor of a gradient scaler
            grad * grad_weight,
            None,
            None,
            None,
            None,
        )


def _keeps_graph() -> bool:
    """Whether another backward pass over the same graph may follow this one."""
    # Private, but what torch's own compiler asks before it overwrites a saved tensor.
    asked = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return asked() if asked else True


def dense_softmap_loss(
    student: Tensor,
    teacher: Tensor,
    student_prototypes: Tensor,
    teacher_prototypes: Tensor,
    sinkhorn: ZipfSinkhorn,
    student_temp: float,
    teacher_temp: float,
    offset: Tensor | None = None,
) -> Tensor:
    """The same loss written down as in the paper, one process, O(N K) memory.

    The reference for :func:`softmap_loss`, which has the arguments' meaning.
    """
    losses = []
    for points, targets in _sets(student, teacher, sinkhorn, offset):
        if len(points) == 0:
            continue
        target = sinkhorn(targets, teacher_prototypes, teacher_temp)
        logits = points.to(target.dtype) @ student_prototypes.to(target.dtype).T
        log_softmap = torch.log_softmax(logits / student_temp, dim=0)
        kl = torch.nn.functional.kl_div(log_softmap, target, reduction="none").sum(dim=0)
        losses.append(kl.mean())
    return torch.stack(losses).mean() if losses else student.sum() * 0


def _sets(
    student: Tensor, teacher: Tensor, sinkhorn: ZipfSinkhorn, offset: Tensor | None
) -> list[tuple[Tensor, Tensor]]:
    """The sets of points that share a normalisation."""
    if sinkhorn.scope == "batch":
        return [(student, teacher)]
    if offset is None:
        raise ValueError("offset is needed with scope='cloud', got None")
    ends = offset.tolist()
    if (ends[-1] if ends else 0) != len(student):
        raise ValueError(f"offset must end with the number of points {len(student)}, got {ends}")
    counts = [end - start for start, end in zip([0, *ends[:-1]], ends)]
    if min(counts, default=0) < 0:
        raise ValueError(f"offset must be >= 0 and never fall, got {ends}")
    return list(zip(student.split(counts), teacher.split(counts)))


def check_shapes(student: Tensor, teacher: Tensor, *prototypes: Tensor) -> None:
    """Raise ValueError unless features are (N, D) both and prototypes (K, D) all."""
    if student.shape != teacher.shape or student.ndim != 2:
        raise ValueError(
            "student and teacher must both be (N, D), "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    for weight in prototypes:
        if weight.ndim != 2 or weight.shape[1] != student.shape[1]:
            raise ValueError(
                f"prototypes must be (K, {student.shape[1]}), got {tuple(weight.shape)}"
            )
    counts = [len(weight) for weight in prototypes]
    if len(set(counts)) > 1:
        raise ValueError(
            "teacher_prototypes must be as many as student_prototypes, "
            f"got {counts[0]} and {counts[1]}"
        )
