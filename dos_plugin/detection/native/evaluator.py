"""DetectionEvaluator: boxes of the validation scans after each epoch, scored and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dos_plugin.detection.native.metric import Scan, nuscenes_metrics
from dos_plugin.detection.native.submission import submission
from dos_plugin.hooks.watch import bare_model
from dos_plugin.host import HOST
from dos_plugin.whole_file import write_whole

NEEDED = ("boxes", "box_labels", "offset_box", "token", "ego", "pose")


class DetectionEvaluator(HOST.HookBase):  # type: ignore[name-defined, misc]
    """With ``evaluate``, runs the validation set, reports mAP and NDS and writes ``result.json``.

    Stands before the host's CheckpointSaver, whose best checkpoint it decides about. Collect of
    ``data.val`` must pass on ``boxes``, ``box_labels``, ``token``, ``ego`` and ``pose``, and count
    ``offset_box``. The figures come from the data set's own boxes: those of a benchmark from its
    own tools, which take the file that ``submission`` writes.

    Args:
        metric: ``"mAP"`` or ``"NDS"``, decides about ``model_best.pth``.
        ranges: Metres around the vehicle by class; None for those of nuScenes.
        submission: Whether ``submission.json`` in the format of nuScenes is written, too.

    Raises:
        ValueError: For another metric.
        KeyError: If a batch lacks what is needed.
    """

    def __init__(
        self,
        metric: str = "mAP",
        ranges: Mapping[str, float] | None = None,
        submission: bool = False,
    ) -> None:
        super().__init__()
        if metric not in ("mAP", "NDS"):
            raise ValueError(f"metric: expected mAP or NDS, got {metric!r}")
        self.metric = metric
        self.ranges = dict(ranges) if ranges is not None else None
        self.submission = submission

    def after_epoch(self) -> None:
        if self.trainer.cfg.evaluate:
            self.evaluate()

    def evaluate(self) -> dict[str, float]:
        """Run the validation set, report and write; returns the figures."""
        trainer = self.trainer
        names = list(trainer.cfg.data.names)
        trainer.logger.info(">>>>>>>>>>>>>>>> Start Evaluation >>>>>>>>>>>>>>>>")
        found, losses = self._run()
        tokens = list(found)
        predicted, labelled, egos, poses = (list(part) for part in zip(*found.values()))
        scores = nuscenes_metrics(predicted, labelled, names, self.ranges, np.stack(egos))
        for key in ("mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE", "mAAE"):
            trainer.logger.info(f"{key}: {scores[key]:.4f}")
        for name in names:
            count = sum((scan.labels == names.index(name)).sum() for scan in labelled)
            trainer.logger.info(f"AP of {name}: {scores[f'AP/{name}']:.4f} ({count} boxes)")
        trainer.logger.info(f"Val result: mAP/NDS {scores['mAP']:.4f}/{scores['NDS']:.4f}.")
        trainer.logger.info("<<<<<<<<<<<<<<<<< End Evaluation <<<<<<<<<<<<<<<<<")
        if trainer.writer is not None:  # the first process
            for key, value in scores.items():
                trainer.writer.add_scalar(f"val/{key}", value, trainer.epoch + 1)
            if losses:
                mean = sum(losses) / len(losses)
                trainer.writer.add_scalar("val/loss", mean, trainer.epoch + 1)
        if _first_process():
            epoch = trainer.epoch + 1
            self._write("result.json", dict(epoch=epoch, scans=len(tokens), **scores))
            if self.submission:
                content = submission(tokens, predicted, np.stack(poses), names)
                self._write("submission.json", content)
        trainer.comm_info["current_metric_value"] = scores[self.metric]
        trainer.comm_info["current_metric_name"] = self.metric
        return scores

    def after_train(self) -> None:
        best = self.trainer.best_metric_value
        self.trainer.logger.info(f"Best {self.metric}: {best:.4f}")

    @torch.no_grad()
    def _run(self) -> tuple[dict[str, tuple], list[float]]:
        """By token: predicted and labelled boxes, place of the vehicle, pose; and losses."""
        trainer = self.trainer
        trainer.model.eval()
        device = next(bare_model(trainer).parameters()).device
        found: dict[str, tuple] = {}
        losses = []
        for batch in trainer.val_loader:
            absent = [key for key in NEEDED if key not in batch]
            if absent:
                raise KeyError(f"DetectionEvaluator: a batch of data.val lacks {', '.join(absent)}")
            batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
            output = trainer.model(batch)
            losses.append(output["loss"].item())
            found |= _by_token(output, batch)
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            parts: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, found)
            found = {token: scan for part in parts for token, scan in part.items()}
        if not found:
            raise ValueError("DetectionEvaluator: data.val has no scan")
        return dict(sorted(found.items())), losses

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        path = Path(self.trainer.cfg.save_path) / name
        text = json.dumps(content, indent=1 if name == "result.json" else None)
        write_whole(path, lambda file: file.write_text(text + "\n", encoding="utf-8"))


def _by_token(output: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, tuple]:
    found = {}
    start = 0
    which = output["batch"]
    for number, (token, end) in enumerate(zip(batch["token"], batch["offset_box"].tolist())):
        own = which == number
        predicted = Scan(*(_array(output[key][own]) for key in ("boxes", "scores", "labels")))
        boxes, labels = (_array(batch[key][start:end]) for key in ("boxes", "box_labels"))
        true = Scan(boxes, np.ones(len(boxes)), labels)
        found[token] = (
            predicted,
            true,
            _array(batch["ego"][number]),
            _array(batch["pose"][number]),
        )
        start = end
    return found


def _array(tensor: Tensor) -> np.ndarray:
    array = tensor.cpu().numpy()
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _first_process() -> bool:
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
