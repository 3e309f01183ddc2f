"""What hooks share that look at a training's backbone from outside and leave no trace in it."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dos_plugin.models.backbone import Branch, build_backbone, frozen
from dos_plugin.probing.scans import Scan, extract
from dos_plugin.seeding import seeded

LOADERS = ("CheckpointLoader", "PretrainedLoader")


def bare_model(trainer: Any) -> nn.Module:
    """The model of a trainer, out of its DDP wrapper if there is one."""
    model = trainer.model
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


class FrozenCopy:
    """A second backbone that takes over the weights in training when it is asked for features.

    It is in eval mode and without gradients, drop path and shuffled orders, so that the same
    weights give the same features; the network in training keeps its modes and buffers.

    Args:
        trainer: trainer of the host, with its model built.
        branch: which network of the model.

    Raises:
        ValueError: if the model has no such network with a backbone.
    """

    def __init__(self, trainer: Any, branch: Branch) -> None:
        model = bare_model(trainer)
        network = getattr(model, branch, None)
        if not isinstance(network, nn.ModuleDict) or "backbone" not in network:
            raise ValueError(
                f"model {type(model).__name__} has no {branch}.backbone, expected a pretraining "
                "as DOS-v1m1"
            )
        self.original = network["backbone"]
        with seeded(0):
            self.copy = frozen(build_backbone(trainer.cfg, branch))

    def features(self) -> Callable[[Scan], Tensor]:
        """A function that gives the (N, C) features of a scan's voxels with the present weights."""
        self.copy.to(next(self.original.parameters()).device)
        self.copy.load_state_dict(self.original.state_dict())
        return lambda scan: extract(self.copy, scan)


def check_after_loader(hook: Any) -> None:
    """ValueError if a hook stands before the one that loads the weights it looks at."""
    hooks = list(hook.trainer.hooks)
    own = next(i for i, other in enumerate(hooks) if other is hook)
    late = [type(other).__name__ for other in hooks[own:] if type(other).__name__ in LOADERS]
    if late:
        raise ValueError(
            f"hooks: {type(hook).__name__} stands before {late[0]}, move it to the end of the list"
        )


def is_main_process() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def rank() -> int:
    """Number of this process, 0 without others."""
    return torch.distributed.get_rank() if world_size() > 1 else 0


def world_size() -> int:
    """Number of processes that train together."""
    dist = torch.distributed
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def open_wandb(trainer: Any) -> Any:
    """The module wandb where the config asks for it and the host has a run open, else None."""
    module = sys.modules.get("wandb") if trainer.cfg.get("enable_wandb") else None
    return module if module is not None and module.run is not None else None
