"""Hook that evaluates segmentation after each epoch."""

from typing import Any

import torch
from torch import Tensor

from ..distributed import get_world_size
from ..registry import HOOKS
from .base import HookBase


@HOOKS.register_module()
class SemSegEvaluator(HookBase):
    """With ``evaluate``, runs the validation set and reports mIoU, mAcc and allAcc.

    The model must return ``seg_logits`` (N, C) and ``loss``; the batch needs ``segment`` or, to
    count points and not voxels, ``inverse`` and ``origin_segment``. Reads ``num_classes``,
    ``ignore_index`` and ``names`` of ``cfg.data``. ``comm_info`` gets ``current_metric_value``,
    the mIoU, which decides about ``model_best.pth``. TensorBoard: ``val/loss``, ``val/mIoU``,
    ``val/mAcc``, ``val/allAcc`` over epochs.

    Classes that the validation set does not hold count as 0 in both means, as on the real host.

    Args:
        write_cls_iou: Also write the IoU of each class.
    """

    def __init__(self, write_cls_iou: bool = False) -> None:
        self.write_cls_iou = write_cls_iou

    def after_epoch(self) -> None:
        if self.trainer.cfg.evaluate:
            self.evaluate()

    def after_train(self) -> None:
        self.trainer.logger.info(f"Best mIoU: {self.trainer.best_metric_value:.4f}")

    def evaluate(self) -> None:
        """Run the validation set and report."""
        trainer, data = self.trainer, self.trainer.cfg.data
        log = trainer.logger.info
        log(">>>>>>>>>>>>>>>> Start Evaluation >>>>>>>>>>>>>>>>")
        trainer.model.eval()
        counts = torch.zeros(3, data.num_classes, dtype=torch.float64, device=trainer.device)
        losses = []
        for number, batch in enumerate(trainer.val_loader, 1):
            batch = _to(batch, trainer.device)
            with torch.no_grad():
                output = trainer.model(batch)
            losses.append(output["loss"].item())
            counts += count(*_answers(output, batch), data.num_classes, data.ignore_index)
            log(f"Test: [{number}/{len(trainer.val_loader)}] Loss {losses[-1]:.4f} ")
        if get_world_size() > 1:
            torch.distributed.all_reduce(counts)
        right, predicted, labelled = counts.cpu()
        iou = (right / (predicted + labelled - right).clamp_min(1)).tolist()
        accuracy = (right / labelled.clamp_min(1)).tolist()
        scalars = dict(
            loss=sum(losses) / max(1, len(losses)),
            mIoU=sum(iou) / len(iou),
            mAcc=sum(accuracy) / len(accuracy),
            allAcc=(right.sum() / labelled.sum().clamp_min(1)).item(),
        )
        numbers = "/".join(f"{scalars[key]:.4f}" for key in ("mIoU", "mAcc", "allAcc"))
        log(f"Val result: mIoU/mAcc/allAcc {numbers}.")
        for i, name in enumerate(data.names):
            log(f"Class_{i}-{name} Result: iou/accuracy {iou[i]:.4f}/{accuracy[i]:.4f}")
        log("<<<<<<<<<<<<<<<<< End Evaluation <<<<<<<<<<<<<<<<<")
        if trainer.writer is not None:
            if self.write_cls_iou:
                scalars |= {f"cls_{i}-{name} IoU": iou[i] for i, name in enumerate(data.names)}
            for key, value in scalars.items():
                trainer.writer.add_scalar(f"val/{key}", value, trainer.epoch + 1)
        trainer.comm_info["current_metric_value"] = scalars["mIoU"]
        trainer.comm_info["current_metric_name"] = "mIoU"


def count(pred: Tensor, target: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Points per class, (3, C): predicted rightly, predicted, labelled.

    Args:
        pred: (N,) int64 predicted classes.
        target: (N,) int64 labels; points with ``ignore_index`` do not count.
        num_classes: C.
        ignore_index: Label of points without one.
    """
    valid = target != ignore_index
    pred, target = pred[valid], target[valid]
    parts = (pred[pred == target], pred, target)
    return torch.stack([torch.bincount(part, minlength=num_classes) for part in parts])


def _answers(output: dict, batch: dict) -> tuple[Tensor, Tensor]:
    """Prediction and label of each point."""
    pred = output["seg_logits"].argmax(1)
    if "inverse" in batch:
        return pred[batch["inverse"]], batch["origin_segment"]
    return pred, batch["segment"]


def _to(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }
