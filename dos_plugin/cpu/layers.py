"""Stand-ins for the two names the host takes from ``timm.layers``."""

import torch
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

__all__ = ["DropPath", "trunc_normal_"]


class DropPath(nn.Module):
    """Drops whole rows of a residual branch at random (stochastic depth), in training only.

    Args:
        drop_prob: share of rows (first dimension) set to zero.
        scale_by_keep: divide the kept rows by 1 - drop_prob, so that the mean stays.
    """

    def __init__(self, drop_prob: float = 0.0, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.scale_by_keep = scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        """Applies the drop to x of shape (n, ...)."""
        if not self.training or self.drop_prob == 0.0:
            return x
        keep = 1.0 - self.drop_prob
        kept = torch.rand((len(x),) + (1,) * (x.dim() - 1), device=x.device) < keep
        kept = kept.to(x.dtype)
        if self.scale_by_keep and keep > 0:
            kept = kept / keep
        return x * kept
