"""The other targets of the paper's component ablation: per-point clustering, feature regression.

Shape letters in this file: N points, K prototypes, D channels. Both losses are means over the
points of all ranks, scaled as in ``softmap.py`` so that the mean over ranks is the loss of one
process holding the whole batch. Every rank must call them, also with N = 0.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .distributed import all_reduce_sum, world_size
from .logits import Logits
from .options import check_number
from .softmap import check_shapes
from .zipf_sinkhorn import TEMP, ZipfSinkhorn


def clustering_loss(
    student: Tensor,
    teacher: Tensor,
    student_prototypes: Tensor,
    teacher_prototypes: Tensor,
    sinkhorn: ZipfSinkhorn,
    student_temp: float,
    teacher_temp: float,
) -> Tensor:
    """Cross-entropy with per-point cluster assignments (DOS ablation; SwAV, arXiv 2006.09882).

    The teacher's assignment of a point is its softmax over prototypes after Sinkhorn scaling over
    the batch (``alpha=0`` in ``sinkhorn`` is the usual uniform one); rows sum to 1. With
    ``num_iters=0`` it is the plain softmax. Blocks of points are recomputed in the backward pass,
    so no N x K tensor is kept.

    Args and Raises: see :func:`dos_plugin.method.softmap.softmap_loss`; the scope must be
    ``"batch"``.

    Returns:
        Scalar loss, the mean over points.
    """
    if sinkhorn.scope != "batch":
        raise ValueError(f"clustering needs a sinkhorn of scope='batch', got {sinkhorn.scope!r}")
    check_shapes(student, teacher, student_prototypes, teacher_prototypes)
    check_number("student_temp", student_temp, TEMP)
    check_number("teacher_temp", teacher_temp, TEMP)
    with torch.autocast(student.device.type, enabled=False):
        logits = Logits(teacher, teacher_prototypes, teacher_temp)
        weight = student_prototypes.to(logits.prototypes.dtype)
        log_prior = sinkhorn.prior(len(weight), weight.device).to(weight.dtype).log()
        bias, log_column, by_row = sinkhorn.scaling(logits)
        # The column scaling that the assignment follows; without iterations there is none.
        bias = (
            (bias + log_prior - log_column).to(weight.dtype) if by_row else torch.zeros_like(bias)
        )

        def block_loss(feat: Tensor, weight: Tensor, target: Tensor) -> Tensor:
            log_assignment = torch.log_softmax(feat.to(weight.dtype) @ weight.T / student_temp, 1)
            return -(target * log_assignment).sum()

        # A zero with a graph, for a rank without points; nothing of it can overflow.
        total = student[:0].to(weight.dtype).sum() + weight[:0].sum()
        for rows in logits.blocks():
            target = torch.softmax(logits.block(rows, bias), dim=1)
            total = total + checkpoint(
                block_loss, student[rows], weight, target, use_reentrant=False
            )
        return _mean_over_ranks(total, len(student))


def regression_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of normalised features, ``2 - 2 cos`` (DOS ablation; BYOL).

    Args:
        student: (N, D) L2-normalised student features.
        teacher: (N, D) L2-normalised teacher features, no gradient.

    Returns:
        Scalar loss, the mean over points.

    Raises:
        ValueError: If the shapes disagree.
    """
    check_shapes(student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        total = (2 - 2 * (student.float() * teacher.detach().float()).sum(dim=1)).sum()
        return _mean_over_ranks(total, len(student))


def _mean_over_ranks(total: Tensor, count: int) -> Tensor:
    points = all_reduce_sum(torch.full((), float(count), device=total.device))
    return total * (world_size() / points.clamp_min(1))
