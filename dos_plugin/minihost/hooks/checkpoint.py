"""Hooks that read and write checkpoints in the real host's file format."""

import shutil
from pathlib import Path
from typing import Any

from dos_plugin.whole_file import write_whole

from ..checkpoint import check_fit, load_checkpoint, rename_keys, save_checkpoint
from ..distributed import get_rank, get_world_size
from ..registry import HOOKS
from .base import HookBase


@HOOKS.register_module()
class CheckpointSaver(HookBase):
    """After each epoch writes ``<save_path>/model/model_last.pth``, completely or not at all.

    With an evaluator, ``model_best.pth`` is a copy of the best epoch; with ``save_freq``, every
    ``save_freq``-th epoch is kept as ``epoch_<number>.pth``.
    """

    def __init__(self, save_freq: int | None = None) -> None:
        self.save_freq = save_freq

    def after_epoch(self) -> None:
        if get_rank() != 0:
            return
        trainer = self.trainer
        is_best = trainer.cfg.evaluate and self._is_best()
        epoch = trainer.epoch + 1
        folder = Path(trainer.cfg.save_path) / "model"
        path = folder / "model_last.pth"
        trainer.logger.info(f"Saving checkpoint to: {path}")
        content = {
            "epoch": epoch,
            "state_dict": trainer.model.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "scheduler": trainer.scheduler.state_dict(),
            "scaler": trainer.scaler.state_dict() if trainer.cfg.enable_amp else None,
            "best_metric_value": trainer.best_metric_value,
        }
        save_checkpoint(content, path)
        if is_best:
            write_whole(folder / "model_best.pth", lambda file: shutil.copyfile(path, file))
        if self.save_freq and epoch % self.save_freq == 0:
            target = folder / f"epoch_{epoch}.pth"
            write_whole(target, lambda file: shutil.copyfile(path, file))

    def _is_best(self) -> bool:
        info = self.trainer.comm_info
        if "current_metric_value" not in info:
            raise KeyError("evaluate=True, but no evaluator hook stands before CheckpointSaver")
        value = info["current_metric_value"]
        better = value > self.trainer.best_metric_value
        if better:
            self.trainer.best_metric_value = value
        best = self.trainer.best_metric_value
        self.trainer.logger.info(f"Best {info['current_metric_name']} so far: {best:.4f}")
        return better


@HOOKS.register_module()
class CheckpointLoader(HookBase):
    """Before training loads ``cfg.weight``, if given, and with ``cfg.resume`` the state of the run.

    Args:
        keywords: Part of a key that is replaced, once per key, by ``replacement``. Every key is
            taken as beginning with "module.", so "module.student.backbone" names the backbone.
        replacement: Must keep "module." at the start of the keys; None is ``keywords``.
        strict: Refuse any missing or unexpected key. Resuming is always strict.

    Raises:
        FileNotFoundError: If the file is missing, or ``resume`` is set without ``weight``.
        ValueError: If the file is unreadable or belongs to another model (see
            :func:`dos_plugin.minihost.checkpoint.check_fit`).
    """

    def __init__(
        self, keywords: str = "", replacement: str | None = None, strict: bool = False
    ) -> None:
        self.keywords = keywords
        self.replacement = keywords if replacement is None else replacement
        self.strict = strict

    def before_train(self) -> None:
        trainer, cfg = self.trainer, self.trainer.cfg
        if not cfg.weight:
            if cfg.resume:
                raise FileNotFoundError(
                    f"resume=True needs the run's checkpoint in weight, got weight={cfg.weight!r}"
                )
            trainer.logger.info("No weight to load: training starts from random weights")
            return
        trainer.logger.info(f"Loading weight at: {cfg.weight}")
        checkpoint = load_checkpoint(cfg.weight, trainer.device)
        weight, meant = rename_keys(
            checkpoint["state_dict"], self.keywords, self.replacement, get_world_size() > 1
        )
        own = trainer.model.state_dict()
        strict = self.strict or cfg.resume
        missing, unexpected = check_fit(own, weight, meant, cfg.weight, strict)
        trainer.model.load_state_dict(weight, strict=strict)
        trainer.logger.info(
            f"Loaded {len(weight) - len(unexpected)} tensors; not in the checkpoint: {missing}; "
            f"not in the model: {unexpected}"
        )
        if cfg.resume:
            self._resume(checkpoint)

    def _resume(self, checkpoint: dict[str, Any]) -> None:
        trainer, cfg = self.trainer, self.trainer.cfg
        parts = ["epoch", "best_metric_value", "optimizer", "scheduler"]
        parts += ["scaler"] if cfg.enable_amp else []
        lacking = [part for part in parts if checkpoint.get(part) is None]
        if lacking:
            raise ValueError(f"cannot resume from {cfg.weight!r}: it lacks {', '.join(lacking)}")
        steps = checkpoint["scheduler"].get("total_steps", cfg.scheduler.total_steps)
        if steps != cfg.scheduler.total_steps:
            raise ValueError(
                f"cannot resume from {cfg.weight!r}: its run has {steps} optimizer steps, this one "
                f"{cfg.scheduler.total_steps} (epoch, batch_size, accumulation or data differ)"
            )
        try:
            trainer.optimizer.load_state_dict(checkpoint["optimizer"])
        except ValueError as error:
            raise ValueError(f"cannot resume from {cfg.weight!r}: optimizer: {error}") from error
        trainer.scheduler.load_state_dict(checkpoint["scheduler"])
        if cfg.enable_amp:
            trainer.scaler.load_state_dict(checkpoint["scaler"])
        trainer.start_epoch = checkpoint["epoch"]
        trainer.best_metric_value = checkpoint["best_metric_value"]
        trainer.logger.info(f"Resuming after epoch {trainer.start_epoch} of {trainer.max_epoch}")
