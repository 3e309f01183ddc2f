"""DetectionEvaluator: boxes of the validation scans after each epoch, scored and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dos_plugin.detection.native.scoring import detect, score, write
from dos_plugin.host import HOST


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
        epoch = trainer.epoch + 1
        trainer.logger.info(">>>>>>>>>>>>>>>> Start Evaluation >>>>>>>>>>>>>>>>")
        found = detect(trainer.model, trainer.val_loader, "data.val")
        scores = score(found, names, self.ranges, trainer.logger)
        trainer.logger.info("<<<<<<<<<<<<<<<<< End Evaluation <<<<<<<<<<<<<<<<<")
        if trainer.writer is not None:  # the first process
            for key, value in scores.items():
                trainer.writer.add_scalar(f"val/{key}", value, epoch)
            if found.loss is not None:
                trainer.writer.add_scalar("val/loss", found.loss, epoch)
        folder = Path(trainer.cfg.save_path)
        write(folder, found, names, dict(epoch=epoch, **scores), self.submission)
        trainer.comm_info["current_metric_value"] = scores[self.metric]
        trainer.comm_info["current_metric_name"] = self.metric
        return scores

    def after_train(self) -> None:
        best = self.trainer.best_metric_value
        self.trainer.logger.info(f"Best {self.metric}: {best:.4f}")
