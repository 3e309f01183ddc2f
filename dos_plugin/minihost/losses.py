"""Losses of segmentation configs, under the real host's names."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_pointcloud.losses import lovasz_softmax

from .registry import LOSSES


@LOSSES.register_module()
class CrossEntropyLoss(nn.Module):
    """Cross entropy of logits (N, C) and classes (N,), times ``loss_weight``.

    Args:
        weight: Weight of each class.
        label_smoothing: As in PyTorch.
        loss_weight: Factor of the result.
        ignore_index: Class that does not count.
    """

    def __init__(
        self,
        weight: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        loss_weight: float = 1.0,
        ignore_index: int = -1,
    ) -> None:
        super().__init__()
        self.weight = None if weight is None else torch.tensor(weight)
        self.label_smoothing = label_smoothing
        self.loss_weight = loss_weight
        self.ignore_index = ignore_index

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.to(pred)
        loss = nn.functional.cross_entropy(
            pred,
            target,
            weight=weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )
        return self.loss_weight * loss


@LOSSES.register_module()
class LovaszLoss(nn.Module):
    """Lovász-Softmax loss of logits (N, C) and classes (N,) over the classes that occur.

    Args:
        mode: ``"multiclass"``; others are left to the real host.
        ignore_index: Class that does not count; None counts all.
        loss_weight: Factor of the result.

    Raises:
        ValueError: For another mode.
    """

    def __init__(
        self, mode: str, ignore_index: int | None = None, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        if mode != "multiclass":
            raise ValueError(f"mode must be 'multiclass' on the embedded host, got {mode!r}")
        self.ignore_index = ignore_index
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        # No class is below the smallest integer: nothing is ignored.
        ignore = torch.iinfo(torch.long).min if self.ignore_index is None else self.ignore_index
        return self.loss_weight * lovasz_softmax(pred.softmax(1), target, ignore_index=ignore)


class Criteria:
    """Sum of losses; without any, what it is given."""

    def __init__(self, cfg: Sequence[dict] | None = None) -> None:
        self.criteria = [LOSSES.build(item) for item in cfg or []]

    def __call__(self, pred: Tensor, target: Tensor) -> Tensor:
        if not self.criteria:
            return pred
        return torch.stack([loss(pred, target) for loss in self.criteria]).sum()


def build_criteria(cfg: Sequence[dict] | None) -> Criteria:
    """Build the losses of a segmentation config."""
    return Criteria(cfg)
