"""Collectives of the method. Without a process group each of them is the identity.

All of them return new tensors and leave their argument alone. None of them is differentiated
through: the loss computes its gradients itself (see ``softmap.py``).
"""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes that share a batch (1 without a process group)."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_sum(value: Tensor) -> Tensor:
    """Sum of ``value`` over all ranks."""
    if world_size() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


def all_reduce_logsumexp(value: Tensor) -> Tensor:
    """``log(sum(exp(value)))`` over all ranks, element by element, safe for ``-inf``."""
    if world_size() == 1:
        return value
    parts = [torch.empty_like(value) for _ in range(world_size())]
    dist.all_gather(parts, value.detach().contiguous())
    return torch.stack(parts).logsumexp(dim=0)
