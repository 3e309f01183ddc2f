"""The few facts about the process group; every function also answers for a single process."""

import torch.distributed as dist


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if _active() else 1


def get_rank() -> int:
    """Number of this process among them; 0 writes files."""
    return dist.get_rank() if _active() else 0


def synchronize() -> None:
    """Wait for all processes."""
    if get_world_size() > 1:
        dist.barrier()
