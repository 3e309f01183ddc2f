"""Slow, obvious references for the method, in float64 straight from the formulas.

Nothing here calls the package. Shape letters: N points, K prototypes, D channels, w prior.
"""

import torch
from torch import Tensor


def unit_rows(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Seeded random rows of length one."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values / values.norm(dim=1, keepdim=True)).to(dtype)


def prior_reference(num_prototypes: int, alpha: float) -> Tensor:
    """w_k proportional to k^-alpha."""
    w = torch.tensor([k**-alpha for k in range(1, num_prototypes + 1)], dtype=torch.float64)
    return w / w.sum()


def target_reference(
    feat: Tensor, prototypes: Tensor, temp: float, alpha: float = 1.3, num_iters: int = 3
) -> Tensor:
    """Zipf-Sinkhorn in matrix form, the four steps of the paper's section 3 one after the other."""
    plan = (feat.detach().double() @ prototypes.detach().double().T / temp).exp()
    n, k = plan.shape
    w = prior_reference(k, alpha)
    plan = plan / plan.sum()
    for _ in range(num_iters):
        plan = plan / plan.sum(dim=1, keepdim=True) / n
        plan = plan / plan.sum(dim=0, keepdim=True) * w
    return plan / plan.sum(dim=0, keepdim=True)


def softmap_reference(feat: Tensor, prototypes: Tensor, temp: float) -> Tensor:
    """Per prototype, the softmax over points."""
    weight = (feat @ prototypes.T / temp).exp()
    return weight / weight.sum(dim=0, keepdim=True)


def softmap_loss_reference(
    student: Tensor,
    teacher: Tensor,
    student_prototypes: Tensor,
    teacher_prototypes: Tensor,
    student_temp: float,
    teacher_temp: float,
    alpha: float = 1.3,
    num_iters: int = 3,
    offset: list[int] | None = None,
) -> Tensor:
    """1/K sum_k KL(target(:, k) || S(:, k)), the mean over non-empty clouds if there is an offset.

    Feed it float64 leaves to have gradients to compare with.
    """
    ends = [len(student)] if offset is None else offset
    losses = []
    for start, end in zip([0, *ends[:-1]], ends):
        if start == end:
            continue
        target = target_reference(
            teacher[start:end], teacher_prototypes, teacher_temp, alpha, num_iters
        )
        softmap = softmap_reference(student[start:end], student_prototypes, student_temp)
        kl = (target * (target / softmap).log()).sum(dim=0)
        losses.append(kl.sum() / len(student_prototypes))
    return sum(losses) / len(losses) if losses else (student.sum() + student_prototypes.sum()) * 0


def clustering_loss_reference(
    student: Tensor,
    teacher: Tensor,
    student_prototypes: Tensor,
    teacher_prototypes: Tensor,
    student_temp: float,
    teacher_temp: float,
    alpha: float = 0.0,
    num_iters: int = 3,
) -> Tensor:
    """Mean cross-entropy of per-point assignments: Sinkhorn's plan with its rows scaled to 1."""
    w = prior_reference(len(teacher_prototypes), alpha)
    plan = target_reference(teacher, teacher_prototypes, teacher_temp, alpha, num_iters) * w
    assignment = plan / plan.sum(dim=1, keepdim=True)
    guess = (student @ student_prototypes.T / student_temp).exp()
    guess = guess / guess.sum(dim=1, keepdim=True)
    return -(assignment * guess.log()).sum() / max(1, len(student))


def double_leaf(value: Tensor) -> Tensor:
    """A float64 leaf with the same (possibly already rounded) values."""
    return value.detach().double().requires_grad_()


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest expected magnitude."""
    difference = (value.detach().double() - expected.detach().double()).abs().max()
    return (difference / expected.detach().double().abs().max()).item()
