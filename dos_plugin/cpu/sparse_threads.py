"""Keeps spconv's CPU convolutions to one thread, because with more their results are wrong.

The scatter step of spconv 2.3.8 adds rows from several threads without guarding them. Some sums get
lost: forward values and input gradients are off by a good part of their size, and differ between
runs. Torch's own operations keep all their threads.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

_CONVOLUTIONS = ("indice_conv", "indice_conv_backward")


def _on_one_thread(function: Callable) -> Callable:
    @functools.wraps(function)
    def wrapped(features: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        threads = torch.get_num_threads()
        if features.is_cuda or threads == 1:
            return function(features, *args, **kwargs)
        torch.set_num_threads(1)
        try:
            return function(features, *args, **kwargs)
        finally:
            torch.set_num_threads(threads)

    wrapped._dos_plugin_one_thread = True  # type: ignore[attr-defined]
    return wrapped


def apply() -> None:
    """Guard spconv in this process; calling it again changes nothing."""
    from spconv.pytorch import ops

    for name in _CONVOLUTIONS:
        function = getattr(ops, name)
        if not hasattr(function, "_dos_plugin_one_thread"):
            setattr(ops, name, _on_one_thread(function))
