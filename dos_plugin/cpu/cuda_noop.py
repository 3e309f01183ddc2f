"""Calls of ``torch.cuda`` that the host makes without asking whether there is a GPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def install() -> list[str]:
    """Makes moves to the GPU the identity and queries of it harmless.

    ``autocast("cuda")`` and ``GradScaler("cuda")`` need nothing: without CUDA torch switches them
    off by itself, so that AMP configs train in float32.

    Returns:
        One line per group of functions.
    """
    for owner in (Tensor, torch.nn.Module, torch.UntypedStorage, torch.TypedStorage):
        owner.cuda = _same  # type: ignore[method-assign, assignment]
    for name, result in (("synchronize", None), ("set_device", None), ("current_device", 0)):
        setattr(torch.cuda, name, _constant(result))
    torch.cuda.IntTensor = torch.IntTensor  # type: ignore[attr-defined, misc]
    torch.histc = _with_integers(torch.histc)  # type: ignore[assignment]
    return [
        ".cuda() of tensors, modules and storages: stays on the CPU",
        "torch.cuda.synchronize, set_device, current_device: do nothing",
        "torch.cuda.IntTensor: one on the CPU",
        "torch.histc of integers: counted in float64",
    ]


def _same(self: Any, *args: object, **kwargs: object) -> Any:
    return self


def _constant(result: object) -> Callable[..., object]:
    def function(*args: object, **kwargs: object) -> object:
        return result

    return function


def _with_integers(histc: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The CPU kernel takes floating point only; CUDA's also takes integers."""

    def function(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if input.is_floating_point():
            return histc(input, *args, **kwargs)
        return histc(input.double(), *args, **kwargs).to(input.dtype)

    return function
