"""Repairs of spconv's CPU code path, which cannot train or infer as shipped.

- Its backward asks CUDA for the current stream, although the CPU kernels need none.
- A convolution with bias refuses to run in eval mode; here the bias is added afterwards.
- With several threads its sums race: see ``sparse_threads.py``.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from . import sparse_threads


def _no_stream() -> int:
    return 0


def _bias_outside(conv_forward: Any) -> Any:
    """Wrap spconv's ``_conv_forward`` so that CPU features get their bias after the kernel."""

    @functools.wraps(conv_forward)
    def wrapped(
        self: Any, training: bool, input: Any, weight: Any, bias: Any, *args: Any, **kwargs: Any
    ) -> Any:
        plain = bias is None or training or input.features.is_cuda or input.is_quantized
        if plain:
            return conv_forward(self, training, input, weight, bias, *args, **kwargs)
        out = conv_forward(self, training, input, weight, None, *args, **kwargs)
        return out.replace_feature(out.features + bias)

    wrapped._dos_plugin_fix = True  # type: ignore[attr-defined]
    return wrapped


def apply() -> bool:
    """Repair spconv in this process if it is installed and the machine has no CUDA.

    Calling it again changes nothing. With CUDA nothing is touched.

    Returns:
        Whether spconv is repaired now.
    """
    if torch.cuda.is_available():
        return False
    try:
        from spconv.pytorch import conv, ops
    except ImportError:
        return False
    ops.get_current_stream = _no_stream
    base = conv.SparseConvolutionBase
    if not getattr(base._conv_forward, "_dos_plugin_fix", False):
        base._conv_forward = _bias_outside(base._conv_forward)
    sparse_threads.apply()
    return True
