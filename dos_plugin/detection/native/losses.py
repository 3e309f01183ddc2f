"""Losses of a centre head, in float32 whatever autocast says: in half precision they overflow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian_focal_loss(logits: Tensor, heat: Tensor, ignored: Tensor | None = None) -> Tensor:
    """Penalty-reduced focal loss of heat maps, over the number of centres.

    CenterNet (arXiv 1904.07850), equation 1, with alpha 2 and beta 4; from logits, so that no
    probability is rounded to 0 or 1.

    Args:
        logits: (B, C, H, W).
        heat: (B, C, H, W), 1 at centres and below elsewhere.
        ignored: (B, H, W) bool, cells where nothing that is found is wrong; centres count there.
    """
    logits, heat = logits.float(), heat.float()
    found, missed = F.logsigmoid(logits), F.logsigmoid(-logits)
    centre = heat.eq(1)
    positive = found * missed.exp() ** 2
    negative = missed * found.exp() ** 2 * (1 - heat) ** 4
    if ignored is not None:
        negative = negative.masked_fill(ignored[:, None], 0.0)
    loss = -torch.where(centre, positive, negative).sum()
    return loss / centre.sum().clamp_min(1)


def code_loss(predicted: Tensor, code: Tensor, weights: Sequence[float]) -> Tensor:
    """Weighted L1 of codes, over the number of boxes; what is not known (NaN) costs nothing.

    Args:
        predicted: (M, D).
        code: (M, D).
        weights: D; a column of weight 0 may hold anything.
    """
    predicted = predicted.float()
    weight = predicted.new_tensor(list(weights))
    known = torch.isfinite(code) & (weight > 0)
    distance = torch.where(known, predicted - code.nan_to_num(0.0, 0.0, 0.0), 0.0).abs()
    return (distance * weight).sum() / max(1, len(code))
