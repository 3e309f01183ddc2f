"""Sinkhorn and the softmap loss as matrices, the way they are usually written.

The other side of the benchmarks, and in float64 their reference. It shares no code with the
library.
"""

import torch
from torch import Tensor
from torch.nn.functional import kl_div


@torch.no_grad()
def matrix_sinkhorn(logits: Tensor, prior: Tensor, num_iters: int) -> Tensor:
    """(N, K) plan whose columns sum to the (K,) prior, from (N, K) logits <= 0."""
    plan = torch.exp(logits)
    plan /= plan.sum()
    for _ in range(num_iters):
        plan /= plan.sum(dim=1, keepdim=True)
        plan /= len(plan)
        plan *= prior / plan.sum(dim=0)
    return plan


def zipf(k: int, alpha: float, like: Tensor) -> Tensor:
    """(K,) power law over prototypes."""
    weight = torch.arange(1, k + 1, device=like.device, dtype=like.dtype).pow(-alpha)
    return weight / weight.sum()


def dense_loss(
    student: Tensor,
    teacher: Tensor,
    prototypes: Tensor,
    student_temp: float,
    teacher_temp: float,
    alpha: float = 1.3,
    num_iters: int = 3,
) -> Tensor:
    """Mean over prototypes of KL(target softmap || student softmap), points (N, D)."""
    with torch.no_grad():
        prior = zipf(len(prototypes), alpha, prototypes)
        logits = (teacher @ prototypes.T - 1) / teacher_temp
        target = matrix_sinkhorn(logits, prior, num_iters) / prior
    log_softmap = torch.log_softmax(student @ prototypes.T / student_temp, dim=0)
    return kl_div(log_softmap, target, reduction="sum") / len(prototypes)
