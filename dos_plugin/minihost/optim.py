"""Optimizers, parameter groups and learning-rate schedules, which count optimizer steps."""

import copy
import math

import torch
from torch import nn
from torch.optim import lr_scheduler

from .log import FILE_ONLY, get_logger
from .registry import OPTIMIZERS, SCHEDULERS

for _optimizer in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
    OPTIMIZERS.register_module(name=_optimizer.__name__, module=_optimizer)

_GROUP_KEYS = ("lr", "momentum", "weight_decay")


def named_trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters that require a gradient, by the name under which a checkpoint holds them.

    A backbone may keep its weights under other attribute names than the host's and translate in
    its state dict; the keywords of ``param_dicts`` are meant for the names in the state dict.
    """
    names: dict[int, str] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, nn.Parameter):
            names.setdefault(id(value), name)
    return [
        (names.get(id(parameter), name), parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]


def build_optimizer(
    cfg: dict, model: nn.Module, param_dicts: list[dict] | None = None
) -> torch.optim.Optimizer:
    """Build an optimizer, with one more group for each entry of ``param_dicts``.

    Args:
        cfg: ``type`` and arguments.
        model: Its parameters are optimized; with ``param_dicts``, frozen ones are left out.
        param_dicts: Entries ``keyword`` (a substring of parameter names; the first entry that
            matches wins) and any of lr, momentum, weight_decay for that group.
    """
    cfg = copy.deepcopy(cfg)
    if param_dicts is None:
        return OPTIMIZERS.build({**cfg, "params": list(model.parameters())})
    groups: list[dict] = [{"params": [], "lr": cfg["lr"]}]
    names: list[list[str]] = [[] for _ in range(1 + len(param_dicts))]
    for entry in param_dicts:
        if "keyword" not in entry:
            raise KeyError(f"param_dicts: the entry {dict(entry)!r} has no keyword")
        groups.append({"params": [], **{key: entry[key] for key in _GROUP_KEYS if key in entry}})
    for name, parameter in named_trainable(model):
        matches = (i for i, entry in enumerate(param_dicts, 1) if entry["keyword"] in name)
        chosen = next(matches, 0)
        groups[chosen]["params"].append(parameter)
        names[chosen].append(name)
    for number, group in enumerate(groups):
        keyword = param_dicts[number - 1]["keyword"] if number else "the rest"
        options = {key: value for key, value in group.items() if key != "params"}
        get_logger().info(
            f"Parameter group {number} ({keyword}): {len(names[number])} tensors, {options}"
        )
        get_logger().info(f"Parameter group {number} holds {names[number]}", extra=FILE_ONLY)
    return OPTIMIZERS.build({**cfg, "params": groups})


@SCHEDULERS.register_module()
class OneCycleLR(lr_scheduler.OneCycleLR):
    """PyTorch's one-cycle schedule; ``max_lr`` is a number or a list with one per group."""

    def __init__(
        self, optimizer, max_lr, total_steps: int, pct_start: float = 0.3, **kwargs
    ) -> None:
        if total_steps * pct_start in (0, 1) or total_steps * pct_start == total_steps:
            raise ValueError(
                f"pct_start ({pct_start}) x total_steps ({total_steps}) must not be 0, 1 or "
                "total_steps: a phase would have no length; change pct_start, epoch or batch_size"
            )
        groups = len(optimizer.param_groups)
        if isinstance(max_lr, (list, tuple)) and len(max_lr) != groups:
            raise ValueError(
                f"max_lr has {len(max_lr)} values, but there are {groups} parameter groups "
                "(1 + the entries of param_dicts)"
            )
        super().__init__(optimizer, max_lr, total_steps=total_steps, pct_start=pct_start, **kwargs)


def build_scheduler(cfg: dict, optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    """Build the schedule of ``cfg``, which holds ``total_steps`` by now."""
    return SCHEDULERS.build({**copy.deepcopy(cfg), "optimizer": optimizer})


def cosine(step: int, total: int, base: float, final: float) -> float:
    """Half a cosine from ``base`` at step 0 to ``final`` at step ``total`` and later."""
    if step >= total:
        return final
    return final + 0.5 * (base - final) * (1 + math.cos(math.pi * step / total))
