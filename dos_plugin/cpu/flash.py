"""Stand-in for ``flash_attn``: the same attention through torch's own kernels.

The host asks for ``enable_flash=True`` in its PTv3 configs and hands over bfloat16; like the CUDA
kernel, products are accumulated in float32 and the result is given back in the dtype received.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["flash_attn_varlen_qkvpacked_func"]


def flash_attn_varlen_qkvpacked_func(
    qkv: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    **options: object,
) -> Tensor:
    """Attention inside each of several sequences that lie one after the other.

    Args:
        qkv: (t, 3, h, d) queries, keys and values of t rows, h heads, d channels per head.
        cu_seqlens: (s + 1,) row borders of the s sequences, from 0 to t.
        max_seqlen: longest sequence (the CUDA kernel's hint; unused here).
        dropout_p: share of attention weights dropped.
        softmax_scale: factor on the logits; d ** -0.5 if None.
        options: further options of the CUDA function, accepted only if off.

    Returns:
        (t, h, d), dtype of ``qkv``.

    Raises:
        NotImplementedError: a further option is switched on.
    """
    on = [name for name, value in options.items() if value]
    if on:
        raise NotImplementedError(
            f"flash_attn.flash_attn_varlen_qkvpacked_func: the CPU stand-in has no {on[0]}; "
            "leave it off or set enable_flash=False"
        )
    dtype = qkv.dtype
    if dtype in (torch.float16, torch.bfloat16):
        qkv = qkv.float()
    starts, lengths = cu_seqlens[:-1].long(), cu_seqlens.diff().long()
    rows, parts = [], []
    # All sequences of one length go through as one batch: serialised patches are mostly equal.
    for length in lengths.unique().tolist():
        if length == 0:
            continue
        block = starts[lengths == length, None] + torch.arange(length, device=qkv.device)
        query, key, value = qkv[block].permute(2, 0, 3, 1, 4)  # each (sequences, h, length, d)
        part = scaled_dot_product_attention(
            query, key, value, dropout_p=dropout_p, scale=softmax_scale
        )
        rows.append(block.flatten())
        parts.append(part.transpose(1, 2).flatten(0, 1))
    if not rows:
        return qkv[:, 0].to(dtype)
    order = torch.cat(rows).argsort()
    return torch.cat(parts)[order].to(dtype)
