"""The training loop."""

import functools
import logging
import os
import sys
import time
import traceback
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn
from torch.utils.data import DataLoader

from dos_plugin.messages import one_line
from dos_plugin.seeding import EpochSampler, SeededDataset, derive_seed, set_seed
from dos_plugin.whole_file import write_whole

from . import log
from .collate import collate_fn, point_collate_fn
from .distributed import get_rank, get_world_size, synchronize
from .hooks import HookBase, build_hooks
from .optim import build_optimizer, build_scheduler
from .registry import TRAINERS, build_dataset, build_model
from .storage import EventStorage

_AMP_DTYPE = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


@TRAINERS.register_module("DefaultTrainer")
class Trainer:
    """Trains a model by the real host's order of events.

    Per epoch: seed, ``model.train()``, ``before_epoch``; per batch ``before_step``, forward,
    backward, optimizer and scheduler step (every ``gradient_accumulation_steps`` batches),
    ``after_step``; ``after_epoch``. Hooks and models find everything as attributes: ``cfg``,
    ``model``, ``device``, ``writer`` (None without tensorboardX and on other ranks), ``logger``,
    ``storage``, ``comm_info`` (iter, input_dict, model_output_dict), ``train_loader``,
    ``val_loader``, ``optimizer``, ``scheduler``, ``scaler`` (None without AMP), ``hooks``,
    ``epoch``, ``start_epoch``, ``max_epoch``, ``best_metric_value``.

    Runs are reproducible as described in :mod:`dos_plugin.seeding`. Where the batches of an epoch
    are no multiple of ``gradient_accumulation_steps``, gradients are carried over the epoch's end.

    The folder of the run is touched last, when the hooks have had their ``before_train``: a config,
    data set or checkpoint at fault leaves log and config of an earlier run as they were.

    Args:
        cfg: A config that went through ``load_config`` and ``setup_config``.
        config_text: What to write to ``config.py`` when training starts (not when it resumes).

    Raises:
        ValueError: If the data gives no optimizer step, among others.
    """

    def __init__(self, cfg: Config, config_text: str | None = None) -> None:
        log.start_buffer()
        self.cfg = cfg
        self.config_text = config_text
        self.logger = log.get_logger()
        self.logger.setLevel(logging.INFO if get_rank() == 0 else logging.ERROR)
        self.device = current_device()
        self.epoch = 0
        self.start_epoch = 0
        self.max_epoch = cfg.eval_epoch
        self.max_iter = 0
        self.best_metric_value = -torch.inf
        self.comm_info: dict[str, Any] = {}
        self.storage = EventStorage()
        self.data_iterator: Iterator = iter(())
        self._gradient_accumulation_counter = 0
        self.logger.info(f"Save path: {cfg.save_path}, device: {self.device}")
        if get_rank() == 0:  # pretty_text takes seconds
            text = config_text or cfg.pretty_text
            self.logger.info(f"Config:\n{text}", extra=log.FILE_ONLY)
        self.model = self.build_model()
        self.train_loader = self.build_train_loader()
        self.val_loader = self.build_val_loader()
        self.optimizer = build_optimizer(cfg.optimizer, self.model, cfg.param_dicts)
        self.scheduler = self.build_scheduler()
        # As on the real host, AMP is for CUDA; spconv's CPU kernels know no bfloat16.
        self.autocast = cfg.enable_amp and self.device.type == "cuda"
        if cfg.enable_amp and not self.autocast:
            self.logger.info("enable_amp: no CUDA here, training in float32")
        self.scaler: Any = (
            torch.amp.GradScaler(self.device.type, enabled=self.autocast)
            if cfg.enable_amp
            else None
        )
        self.hooks: list[HookBase] = build_hooks(cfg.hooks)
        for hook in self.hooks:
            hook.trainer = weakref.proxy(self)
        os.makedirs(os.path.join(cfg.save_path, "model"), exist_ok=True)
        self.writer = self.build_writer()

    def build_model(self) -> nn.Module:
        """The model on its device, in DistributedDataParallel if there are several processes."""
        cfg = self.cfg
        model = build_model(cfg.model).to(self.device)
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.logger.info(f"Num params: {count}")
        if get_world_size() == 1:
            return model
        if cfg.sync_bn and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        elif cfg.sync_bn:
            self.logger.info("sync_bn: no CUDA here, every process normalizes by itself")
        with warnings.catch_warnings():  # torch 2.13 renames broadcast_buffers, older ones need it
            warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
            return nn.parallel.DistributedDataParallel(
                model,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                broadcast_buffers=False,
                find_unused_parameters=cfg.find_unused_parameters,
            )

    def build_train_loader(self) -> DataLoader:
        """Loader of shuffled batches; an incomplete one is dropped if there is a full one."""
        cfg = self.cfg
        dataset = build_dataset(cfg.data.train)
        sampler = EpochSampler(len(dataset), cfg.batch_size, cfg.seed, get_rank(), get_world_size())
        return _loader(
            cfg,
            SeededDataset(dataset, cfg.seed),
            self.device,
            batch_size=cfg.batch_size_per_gpu,
            sampler=sampler,
            collate_fn=functools.partial(point_collate_fn, mix_prob=cfg.mix_prob),
            persistent_workers=cfg.num_worker_per_gpu > 0,
        )

    def build_val_loader(self) -> DataLoader | None:
        """Loader of the validation set in order, the same each time; None unless ``evaluate``."""
        if not self.cfg.evaluate:
            return None
        dataset = build_dataset(self.cfg.data.val)
        return ordered_loader(self.cfg, dataset, self.cfg.batch_size_val_per_gpu, self.device)

    def build_scheduler(self) -> Any:
        """The schedule over all optimizer steps; fills in ``cfg.scheduler.total_steps``."""
        cfg = self.cfg
        batches = len(self.train_loader) * self.max_epoch
        steps = batches // cfg.gradient_accumulation_steps
        if steps == 0:
            raise ValueError(
                f"there is no optimizer step: {batches} batches in {self.max_epoch} epochs and "
                f"gradient_accumulation_steps={cfg.gradient_accumulation_steps}"
            )
        cfg.scheduler.total_steps = steps
        return build_scheduler(cfg.scheduler, self.optimizer)

    def build_writer(self) -> Any:
        """The TensorBoard writer of rank 0, or None."""
        if self.cfg.enable_wandb:
            self.logger.warning("enable_wandb=True has no effect on the embedded host")
        if get_rank() != 0:
            return None
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            self.logger.warning(
                "tensorboardX is not installed: there will be no TensorBoard scalars"
            )
            return None
        # The name has seconds: a run that starts within one of another would overwrite its file.
        return SummaryWriter(self.cfg.save_path, filename_suffix=f".{time.time_ns()}")

    def train(self) -> None:
        """Run all epochs.

        Raises:
            SystemExit: With status 1 on any error, whose traceback is in ``train.log`` then, and
                with status 130 on an interrupt.
        """
        try:
            with _ProgressBar(self) as bar:
                self._call("before_train")
                self._open_run()
                bar.start()
                self.logger.info("Start training")
                for epoch in range(self.start_epoch, self.max_epoch):
                    self.epoch = epoch
                    self._run_epoch(bar)
                synchronize()
                self._call("after_train")
        except KeyboardInterrupt:
            self.logger.error("interrupted; finished epochs are in model/model_last.pth")
            raise SystemExit(_INTERRUPTED) from None
        except Exception as error:
            self._open_log(append=True)
            self.logger.error(traceback.format_exc(), extra=log.FILE_ONLY)
            self.logger.error(f"training stopped: {one_line(error)}")
            self.logger.error(f"the traceback is in {self.cfg.save_path}/train.log")
            raise SystemExit(1) from error
        finally:
            if self.writer is not None:
                self.writer.close()
            log.close_log_file()

    def _open_run(self) -> None:
        resume, text = self.cfg.resume, self.config_text
        self._open_log(append=resume)
        if get_rank() == 0 and text is not None and not resume:
            path = Path(self.cfg.save_path) / "config.py"
            write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))

    def _open_log(self, append: bool) -> None:
        if get_rank() == 0:
            log.open_log_file(Path(self.cfg.save_path) / "train.log", append)

    def _run_epoch(self, bar: "_ProgressBar") -> None:
        set_seed(derive_seed(self.cfg.seed, get_rank(), self.epoch))
        sampler: Any = self.train_loader.sampler
        sampler.set_epoch(self.epoch)
        self.model.train()
        self.data_iterator = enumerate(self.train_loader)
        self._call("before_epoch")
        for step, batch in self.data_iterator:
            self.comm_info["iter"], self.comm_info["input_dict"] = step, batch
            self._call("before_step")
            self.run_step()
            self._call("after_step")
            bar.advance()
        self._call("after_epoch")
        self.storage.reset_histories()
        if self.cfg.empty_cache_per_epoch and self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _call(self, moment: str) -> None:
        for hook in self.hooks:
            getattr(hook, moment)()

    def run_step(self) -> None:
        """Forward and backward of one batch; an optimizer step when enough gradients are there."""
        cfg = self.cfg
        batch = self.comm_info["input_dict"]
        for key, value in batch.items():
            if isinstance(value, torch.Tensor):
                batch[key] = value.to(self.device, non_blocking=True)
        if self._gradient_accumulation_counter == 0:
            self.optimizer.zero_grad()
        dtype = _AMP_DTYPE[cfg.amp_dtype]
        with torch.autocast(self.device.type, dtype=dtype, enabled=self.autocast):
            output = self.model(batch)
            if not isinstance(output, dict) or "loss" not in output:
                raise TypeError(
                    f"the model must return a dict with 'loss', got {type(output).__name__}"
                )
            loss = output["loss"] / cfg.gradient_accumulation_steps
        (self.scaler.scale(loss) if cfg.enable_amp else loss).backward()
        self._gradient_accumulation_counter += 1
        if self._gradient_accumulation_counter >= cfg.gradient_accumulation_steps:
            self._gradient_accumulation_counter = 0
            self._optimizer_step()
        if cfg.empty_cache and self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.comm_info["model_output_dict"] = output

    def _optimizer_step(self) -> None:
        amp = self.cfg.enable_amp
        if amp:
            self.scaler.unscale_(self.optimizer)
        if self.cfg.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.cfg.clip_grad)
        if not amp:
            self.optimizer.step()
            self.scheduler.step()
            return
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # it shrinks when the step was skipped
            self.scheduler.step()


def _loader(cfg: Config, dataset: Any, device: torch.device, **kwargs) -> DataLoader:
    return DataLoader(
        dataset,
        num_workers=cfg.num_worker_per_gpu,
        pin_memory=device.type == "cuda",
        # A generator of its own: the loader must not draw from the stream of the model.
        generator=torch.Generator().manual_seed(cfg.seed),
        **kwargs,
    )


def ordered_loader(cfg: Config, dataset: Any, batch_size: int, device: torch.device) -> DataLoader:
    """Loader of this process's share of a data set, in order and the same each time."""
    keys = [(0, index) for index in range(get_rank(), len(dataset), get_world_size())]
    part = torch.utils.data.Subset(SeededDataset(dataset, cfg.seed), keys)  # type: ignore[arg-type]
    return _loader(cfg, part, device, batch_size=batch_size, collate_fn=collate_fn)


def current_device() -> torch.device:
    """That of this process: its GPU, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


class _ProgressBar:
    """A tqdm bar over all batches with the latest loss; nothing if stderr is no terminal."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.bar: Any = None

    def __enter__(self) -> "_ProgressBar":
        return self

    def start(self) -> None:
        """Show the bar from the epoch where training (re)starts."""
        if get_rank() != 0 or not sys.stderr.isatty():
            return
        try:
            from tqdm import tqdm
        except ImportError:
            self.trainer.logger.warning("tqdm is not installed: there will be no progress bar")
            return
        length = len(self.trainer.train_loader)
        self.bar = tqdm(
            total=self.trainer.max_epoch * length,
            initial=self.trainer.start_epoch * length,
            unit="step",
            dynamic_ncols=True,
        )
        log.set_progress_bar(self.bar)

    def advance(self) -> None:
        """Count one batch."""
        if self.bar is None:
            return
        histories = self.trainer.storage.histories()
        if "loss" in histories:
            self.bar.set_postfix(loss=f"{histories['loss'].val:.4f}", refresh=False)
        self.bar.update()

    def __exit__(self, *_) -> None:
        log.set_progress_bar(None)
        if self.bar is not None:
            self.bar.close()
