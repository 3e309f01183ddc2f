"""ExactResume: a training that was stopped goes on as if nothing had happened."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.data.distributed import DistributedSampler

from dos_plugin.hooks.watch import (
    LOADERS,
    bare_model,
    is_main_process,
    open_wandb,
    rank,
    world_size,
)
from dos_plugin.host import HOST
from dos_plugin.method.options import check_choice, check_names, check_number, check_whole
from dos_plugin.runs.checkpoint import load_file
from dos_plugin.seeding import EpochSampler, SeededDataset, derive_seed, set_seed
from dos_plugin.whole_file import write_whole

LAST, PREVIOUS = "model_last.pth", "model_previous.pth"
POSITION = "position"  # key of a checkpoint: where in its epoch the run was
NOTE = "preempted.json"
# Signals that batch systems send before they end a job.
CATCHABLE = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h


class ExactResume(HOST.HookBase):  # type: ignore[name-defined, misc]
    """Makes ``resume=True`` exact, also in the middle of an epoch; stands first in the list.

    The host's checkpoints are of ends of epochs and hold no random state, and its workers draw the
    numbers of epoch 0 again in a resumed run. This hook

    - derives all random numbers from (seed, epoch, sample) and (seed, rank, epoch, batch), so that
      a resumed run takes the batches and augmentations that it would have had, with any number of
      workers; with another number of processes it takes the same batches;
    - writes ``model/model_last.pth`` every ``save_steps`` optimizer steps, too, and keeps the
      file before it as ``model/model_previous.pth``, from which a run goes on whose last one is
      damaged;
    - on a signal ends the step, writes a checkpoint and leaves with status 75, as batch systems
      want it. ``preempted.json`` in the run's folder says so until the run goes on;
    - keeps gradients that had been accumulated for the next optimizer step.

    Go on with ``weight=<save_path>/model/model_last.pth resume=True`` and the same config. Runs on
    one kind of device are then bitwise the same as uninterrupted ones as far as the device's
    operators are.

    Args:
        save_steps: Optimizer steps from one checkpoint inside an epoch to the next; None for ends
            of epochs alone.
        signals: Names of the signals, of SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP.
        grace: Seconds from the signal to the end of the process, finished or not: a step and a
            checkpoint have to fit.

    Raises:
        ValueError: If an option is out of range, the hook does not stand before the one that loads
            the weights, or ``resume=True`` and neither checkpoint can be read or goes with the
            config.
    """

    def __init__(
        self,
        save_steps: int | None = None,
        signals: Sequence[str] = ("SIGTERM", "SIGUSR1"),
        grace: float = 120.0,
    ) -> None:
        super().__init__()
        if save_steps is not None:
            check_whole("save_steps of ExactResume", save_steps)
        if signals not in ((), []):
            check_names("signals of ExactResume", signals)
        for name in signals:
            check_choice("signals of ExactResume", name, CATCHABLE)
        check_number("grace of ExactResume", grace, "(0, 86400]")
        self.save_steps = save_steps
        self.signals = [signal.Signals[name] for name in signals]
        self.grace = grace
        self.start: dict[str, Any] = {}
        self.saved = False  # model_last.pth is of this run

    # -- moments of the training --------------------------------------------------------------

    def before_train(self) -> None:
        """Find the place to go on from, and put the loader there; no weights are loaded here."""
        trainer, cfg = self.trainer, self.trainer.cfg
        loaders = [type(h).__name__ for h in trainer.hooks[: trainer.hooks.index(self)]]
        if any(name in LOADERS for name in loaders):
            raise ValueError("hooks: ExactResume must stand first, before the one that loads")
        self.folder = Path(cfg.save_path)
        start_epoch = 0
        if cfg.resume and cfg.weight:
            cfg.weight = str(self.readable(Path(cfg.weight)))
            content = load_file(cfg.weight)
            start_epoch = content.get("epoch", 0)
            self.start = content.get(POSITION) or {}
            # A damaged last one must not take the place of the one before, which is gone on from.
            self.saved = Path(cfg.weight).resolve() == (self.folder / "model" / LAST).resolve()
        self.seed = self.start.get("seed", cfg.seed)
        batches = len(trainer.train_loader)
        trainer.train_loader = self.seeded_loader(trainer.train_loader, start_epoch)
        if len(trainer.train_loader) != batches:  # the host counts otherwise on several ranks
            trainer.scheduler = trainer.build_scheduler()
        for name in ("batch_size", "batches"):
            here = cfg.batch_size if name == "batch_size" else len(trainer.train_loader)
            if self.start.get("batch") and self.start[name] != here:
                raise ValueError(
                    f"cannot resume inside an epoch from {cfg.weight!r}: it has {name}="
                    f"{self.start[name]}, this run {here}"
                )
        trainer.hooks.append(_AfterAll(self))
        self.catch_signals()

    def before_epoch(self) -> None:
        """Take up the place in the first epoch of a resumed run."""
        trainer = self.trainer
        if trainer.epoch == trainer.start_epoch:
            self.release()
            batch = self.start.get("batch", 0)
            if batch:
                trainer.logger.info(
                    f"Going on in epoch {trainer.epoch + 1} after batch {batch} of "
                    f"{len(trainer.train_loader)}"
                )
                trainer.data_iterator = ((i + batch, b) for i, b in trainer.data_iterator)
                self.advance_counters(batch)
            self.restore_gradients()
            self.draw_from(batch)
            self.start = {}
        else:
            self.draw_from(0)

    def after_epoch(self) -> None:
        """Keep the checkpoint that the host's saver is about to replace."""
        if self.trainer.epoch + 1 < self.trainer.max_epoch:
            self.set_epoch(self.trainer.epoch + 1)
        if is_main_process():
            self.keep_previous()

    def after_train(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    # -- the place in the data ----------------------------------------------------------------

    def seeded_loader(self, loader: Any, epoch: int) -> Any:
        """The same loader with derived random numbers, from the place to go on from."""
        known = (EpochSampler, RandomSampler, DistributedSampler)
        size = getattr(loader, "batch_size", None)
        if type(loader) is not DataLoader or size is None or not isinstance(loader.sampler, known):
            self.trainer.logger.warning(
                f"ExactResume: samples come from {type(loader).__name__} and "
                f"{type(getattr(loader, 'sampler', None)).__name__}, which it does not know: a "
                "resumed run takes them in another order, and begins its epoch anew"
            )
            self.start.pop("batch", None)
            return loader
        dataset = loader.dataset
        if not isinstance(dataset, SeededDataset):
            dataset = SeededDataset(dataset, self.seed)
        sampler = EpochSampler(len(dataset), size * world_size(), self.seed, rank(), world_size())
        sampler.set_epoch(epoch)
        sampler.skip(epoch, self.start.get("batch", 0))
        return DataLoader(
            dataset,
            batch_size=size,
            sampler=sampler,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=partial(_outlive, signals=self.signals, init=loader.worker_init_fn),
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )

    def set_epoch(self, epoch: int) -> None:
        """Tell the sampler, which the host does on several ranks alone."""
        sampler = self.trainer.train_loader.sampler
        if isinstance(sampler, EpochSampler):
            sampler.set_epoch(epoch)

    def draw_from(self, batch: int) -> None:
        """Seed what this process draws from the loading of a batch to that of the next."""
        set_seed(derive_seed(self.seed, rank(), self.trainer.epoch, batch))

    def advance_counters(self, batch: int) -> None:
        """Hooks of the host that count batches start at that of the epoch's beginning."""
        for hook in self.trainer.hooks:
            if hasattr(hook, "curr_iter"):  # InformationWriter
                hook.curr_iter += batch
            if type(hook).__name__ == "WeightDecaySchedular":
                counter = getattr(hook, "scheduler", hook)
                counter.iter += batch

    # -- checkpoints --------------------------------------------------------------------------

    def readable(self, path: Path) -> Path:
        """The checkpoint to go on from: the one named, or the one before it if it is damaged."""
        try:
            _check_whole(path)
            return path
        except (ValueError, FileNotFoundError) as error:
            previous = path.with_name(PREVIOUS)
            if path.name != LAST or not previous.is_file():
                raise
            _check_whole(previous)
            self.trainer.logger.warning(f"{error}: going on from {previous}, the one before it")
            return previous

    def save(self, batch: int) -> Path:
        """Write ``model_last.pth`` as the host's saver does, and the place in the epoch."""
        trainer, cfg = self.trainer, self.trainer.cfg
        path = self.folder / "model" / LAST
        if not is_main_process():
            return path
        done = getattr(trainer, "_gradient_accumulation_counter", 0)
        gradients = [p.grad for p in _parameters(trainer)] if done else None
        content = {
            "epoch": trainer.epoch,
            "state_dict": trainer.model.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "scheduler": trainer.scheduler.state_dict(),
            "scaler": trainer.scaler.state_dict() if cfg.enable_amp else None,
            "best_metric_value": trainer.best_metric_value,
            POSITION: {
                "batch": batch,
                "batches": len(trainer.train_loader),
                "batch_size": cfg.batch_size,
                "seed": self.seed,
                "accumulated": done,
                "gradients": gradients,
            },
        }
        if batch >= len(trainer.train_loader):  # at the end of an epoch as the host counts
            content["epoch"] += 1
            content[POSITION]["batch"] = 0
        self.keep_previous()
        write_whole(path, partial(_save_to_disk, content))
        self.saved = True
        return path

    def keep_previous(self) -> None:
        """Give the last checkpoint its second name, which costs no copy where links are."""
        path = self.folder / "model" / LAST
        if self.saved and path.is_file():
            write_whole(path.with_name(PREVIOUS), lambda file: _link(path, file))

    def restore_gradients(self) -> None:
        """Put back what had been accumulated for the next optimizer step."""
        gradients = self.start.get("gradients")
        if gradients is None:
            return
        for parameter, gradient in zip(_parameters(self.trainer), gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient.to(parameter.device)
        self.trainer._gradient_accumulation_counter = self.start["accumulated"]

    # -- signals ------------------------------------------------------------------------------

    def catch_signals(self) -> None:
        """Note signals; only the main thread of a process can."""
        self.asked: signal.Signals | None = None
        self.handlers: dict[int, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return
        numbers = list(self.signals)
        if self.signals and multiprocessing.parent_process() is not None:
            self.launcher = os.getppid()
            numbers.append(signal.SIGINT)  # torch sends it when the launching process has died
        for number in numbers:
            self.handlers[number] = signal.signal(number, self.ask)

    def ask(self, number: int, _frame: Any) -> None:
        """Ask for an end after this step; a launcher may pass on what the rank was sent, too."""
        if number == signal.SIGINT and os.getppid() == self.launcher:
            raise KeyboardInterrupt
        if self.asked is not None:
            return
        self.asked = signal.Signals(number)
        # Workers that the batch system has killed are no error now.
        self.handlers.setdefault(signal.SIGCHLD, signal.signal(signal.SIGCHLD, lambda *_: None))
        timer = threading.Timer(self.grace, os._exit, [128 + number])
        timer.daemon = True
        timer.start()

    def leave_if_asked(self, batch: int) -> None:
        """If any rank was asked to, write a checkpoint and end the process."""
        if not self.signals or not _any_rank(self.asked is not None, self.trainer):
            return
        trainer = self.trainer
        path = self.save(batch)
        if is_main_process():
            name = self.asked.name if self.asked else "a signal to another rank"
            place = dict(signal=name, epoch=trainer.epoch, batch=batch, weight=str(path))
            write_whole(self.folder / NOTE, lambda file: file.write_text(json.dumps(place) + "\n"))
            trainer.logger.warning(
                f"{name}: stopped in epoch {trainer.epoch + 1} after batch {batch} of "
                f"{len(trainer.train_loader)}, status {TRY_AGAIN}; go on with weight={path} "
                "resume=True"
            )
            if trainer.writer is not None:
                trainer.writer.close()
            if wandb := open_wandb(trainer):
                wandb.finish(exit_code=TRY_AGAIN)
        if world_size() > 1:
            torch.distributed.barrier()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(TRY_AGAIN)  # the host would make an error of an exception

    def release(self) -> None:
        """The run is under way: what said that it had been stopped goes."""
        if is_main_process():
            (self.folder / NOTE).unlink(missing_ok=True)
            if not self.trainer.cfg.resume:
                (self.folder / "model" / PREVIOUS).unlink(missing_ok=True)  # of another run


class _AfterAll(HOST.HookBase):  # type: ignore[name-defined, misc]
    """The last hook of all: what is saved is what the others left."""

    def __init__(self, resume: ExactResume) -> None:
        super().__init__()
        self.resume = resume
        self.trainer = resume.trainer

    def before_epoch(self) -> None:
        self.resume.leave_if_asked(0)

    def after_step(self) -> None:
        resume, trainer = self.resume, self.trainer
        batch = trainer.comm_info["iter"] + 1
        resume.leave_if_asked(batch)
        step = trainer.scheduler.last_epoch
        ended = getattr(trainer, "_gradient_accumulation_counter", 0) == 0
        inside = batch < len(trainer.train_loader)
        if resume.save_steps and ended and inside and step % resume.save_steps == 0:
            path = resume.save(batch)
            trainer.logger.info(f"Saving checkpoint of step {step} to: {path}")
        resume.draw_from(batch)

    def after_epoch(self) -> None:
        """The host's saver has written, without gradients that wait for their step."""
        resume, trainer = self.resume, self.trainer
        if getattr(trainer, "_gradient_accumulation_counter", 0):
            if trainer.epoch + 1 < trainer.max_epoch:
                resume.save(len(trainer.train_loader))
            else:
                trainer.logger.warning(
                    f"the last {trainer._gradient_accumulation_counter} batches of the run give "
                    f"no optimizer step (gradient_accumulation_steps="
                    f"{trainer.cfg.gradient_accumulation_steps})"
                )
        resume.saved = (resume.folder / "model" / LAST).is_file()


def _check_whole(path: Path) -> None:
    """ValueError unless all of a checkpoint can be read; torch itself does not look at sums."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"{path}: damaged in {damaged}")
    load_file(path)


def _save_to_disk(content: dict, path: Path) -> None:
    """Write, and wait for the disk, lest a power cut leave an empty file under the name."""
    with path.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def _link(path: Path, file: Path) -> None:
    file.unlink(missing_ok=True)
    try:
        os.link(path, file)
    except OSError:  # a file system without
        shutil.copyfile(path, file)


def _outlive(worker: int, signals: Sequence[int], init: Callable[[int], None] | None) -> None:
    """Workers live on: batch systems send signals to every process, and the step needs its data.

    They obey the process that reads from them, which ends them by SIGTERM when it ends itself.
    """
    reader = multiprocessing.parent_process()
    if signals and reader is not None and hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        arguments = signals, reader.pid
        threading.Thread(target=_end_with, args=arguments, daemon=True).start()
    if init is not None:
        init(worker)


def _end_with(signals: Sequence[int], reader: int) -> None:
    """End this process at a signal of the reader's; others' are taken and forgotten."""
    while signal.sigwaitinfo(signals).si_pid != reader:
        pass
    os._exit(0)


def _parameters(trainer: Any) -> list[torch.nn.Parameter]:
    return [p for p in bare_model(trainer).parameters() if p.requires_grad]


def _any_rank(flag: bool, trainer: Any) -> bool:
    if world_size() == 1:
        return flag
    device = next(trainer.model.parameters()).device
    flags = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return bool(flags)
