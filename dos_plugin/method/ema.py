"""The teacher: an exponential moving average of the student (DOS, section 2, step 9)."""

import torch
from torch import nn

from .options import check_number


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """``teacher = momentum * teacher + (1 - momentum) * student`` for everything in the teacher.

    Parameters are averaged. Buffers are *copied*: the teacher runs in eval mode, so BatchNorm uses
    running statistics there, and these are averages over time already; averaging them again would
    keep the teacher on the statistics of a student long gone.

    Args:
        teacher: Its parameter and buffer names are a subset of the student's.
        student: Source.
        momentum: Share of the old teacher, in [0, 1].

    Raises:
        ValueError: If ``momentum`` is outside [0, 1].
    """
    check_number("momentum", momentum, "[0, 1]")
    source = dict(student.named_parameters())
    names, targets = zip(*teacher.named_parameters())
    torch._foreach_lerp_(list(targets), [source[name].detach() for name in names], 1 - momentum)
    buffers = dict(student.named_buffers())
    for name, buffer in teacher.named_buffers():
        buffer.copy_(buffers[name])
