"""Hooks that report: timing, log lines, TensorBoard scalars."""

import time

import torch

from ..log import PER_STEP
from ..registry import HOOKS
from .base import HookBase


@HOOKS.register_module()
class IterationTimer(HookBase):
    """Seconds spent waiting for data and per step, and an estimate of the time that remains.

    Args:
        warmup_iter: Steps at the start of an epoch that do not count for the averages.
    """

    def __init__(self, warmup_iter: int = 1) -> None:
        self.warmup_iter = warmup_iter
        self.remaining = 0
        self.last = time.perf_counter()

    def before_train(self) -> None:
        epochs = self.trainer.max_epoch - self.trainer.start_epoch
        self.remaining = epochs * len(self.trainer.train_loader)

    def before_epoch(self) -> None:
        self.last = time.perf_counter()

    def before_step(self) -> None:
        self.trainer.storage.put_scalar("data_time", time.perf_counter() - self.last)

    def after_step(self) -> None:
        now = time.perf_counter()
        storage = self.trainer.storage
        storage.put_scalar("batch_time", now - self.last)
        self.last = now
        self.remaining -= 1
        data, batch = storage.history("data_time"), storage.history("batch_time")
        warming_up = self.trainer.comm_info["iter"] <= self.warmup_iter
        # The first wait for data holds what other hooks did before the epoch.
        step = batch.val - data.val if warming_up else batch.avg
        minutes, seconds = divmod(int(self.remaining * step), 60)
        hours, minutes = divmod(minutes, 60)
        if "iter_info" in self.trainer.comm_info:
            self.trainer.comm_info["iter_info"] += (
                f"Data {data.val:.3f} ({data.avg:.3f}) Batch {batch.val:.3f} ({batch.avg:.3f}) "
                f"Remain {hours:02d}:{minutes:02d}:{seconds:02d} "
            )
        if warming_up:
            data.reset()
            batch.reset()


@HOOKS.register_module()
class InformationWriter(HookBase):
    """Logs every scalar the model returns, per step and as the mean of the epoch.

    TensorBoard: ``params/lr`` and ``train_batch/<key>`` over steps, ``train/<key>`` over epochs.

    Raises:
        TypeError: If the model returns something else than tensors of one element.
    """

    def __init__(self) -> None:
        self.curr_iter = 0
        self.model_output_keys: list[str] = []

    def before_train(self) -> None:
        self.trainer.comm_info["iter_info"] = ""
        self.curr_iter = self.trainer.start_epoch * len(self.trainer.train_loader)

    def before_step(self) -> None:
        self.curr_iter += 1
        trainer = self.trainer
        trainer.comm_info["iter_info"] += (
            f"Train: [{trainer.epoch + 1}/{trainer.max_epoch}]"
            f"[{trainer.comm_info['iter'] + 1}/{len(trainer.train_loader)}] "
        )

    def after_step(self) -> None:
        trainer, storage = self.trainer, self.trainer.storage
        output = trainer.comm_info.get("model_output_dict", {})
        self.model_output_keys = list(output)
        for key, value in output.items():
            if not (isinstance(value, torch.Tensor) and value.numel() == 1):
                raise TypeError(
                    f"the model output {key!r} must be a tensor of one element, got {value!r}"
                )
            storage.put_scalar(key, value.item())
            trainer.comm_info["iter_info"] += f"{key}: {storage.history(key).val:.4f} "
        lr = trainer.optimizer.param_groups[0]["lr"]
        trainer.logger.info(trainer.comm_info["iter_info"] + f"Lr: {lr:.5f}", extra=PER_STEP)
        trainer.comm_info["iter_info"] = ""
        if trainer.writer is not None:
            trainer.writer.add_scalar("params/lr", lr, self.curr_iter)
            for key in self.model_output_keys:
                value = storage.history(key).val
                trainer.writer.add_scalar(f"train_batch/{key}", value, self.curr_iter)

    def after_epoch(self) -> None:
        means = {key: self.trainer.storage.history(key).avg for key in self.model_output_keys}
        text = "".join(f"{key}: {value:.4f} " for key, value in means.items())
        self.trainer.logger.info(f"Train result: {text}")
        if self.trainer.writer is not None:
            for key, value in means.items():
                self.trainer.writer.add_scalar(f"train/{key}", value, self.trainer.epoch + 1)
