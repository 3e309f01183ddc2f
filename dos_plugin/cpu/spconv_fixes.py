"""Repairs of spconv, whose CPU code path cannot train or infer as shipped.

- Its backward asks CUDA for the current stream, although the CPU kernels need none.
- A convolution with bias refuses to run in eval mode; here the bias is added afterwards.
- With several threads its sums race: see ``sparse_threads.py``.
- On any device each of its tensors asks torch.fx whether it is traced, by a function of which torch
  2.13 warns the user, who did not call it.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.fx import ProxyableClassMeta, _symbolic_trace

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


# Of torch 2.4 without a warning; later ones have another function for those who want none.
_is_traced = getattr(_symbolic_trace, "is_fx_symbolic_tracing", _symbolic_trace.is_fx_tracing)


class _QuietMeta(ProxyableClassMeta):
    """The metaclass of spconv's tensors, which asks for what the deprecated function returns."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if _is_traced():
            return super().__call__(*args, **kwargs)
        return type.__call__(cls, *args, **kwargs)


def apply() -> bool:
    """Repair spconv in this process if it is installed and the machine has no CUDA.

    Calling it again changes nothing. With CUDA nothing but the question to torch.fx is touched.

    Returns:
        Whether spconv is repaired now.
    """
    try:
        from spconv.pytorch import SparseConvTensor, conv, ops
    except ImportError:
        return False
    if type(SparseConvTensor) is ProxyableClassMeta:
        SparseConvTensor.__class__ = _QuietMeta
    if torch.cuda.is_available():
        return False
    ops.get_current_stream = _no_stream
    base = conv.SparseConvolutionBase
    if not getattr(base._conv_forward, "_dos_plugin_fix", False):
        base._conv_forward = _bias_outside(base._conv_forward)
    sparse_threads.apply()
    return True
