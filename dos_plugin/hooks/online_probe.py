"""OnlineProbe: how well frozen features of the run tell classes apart, while it trains."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dos_plugin.hooks.watch import (
    FrozenCopy,
    check_after_loader,
    is_main_process,
    open_wandb,
)
from dos_plugin.host import HOST
from dos_plugin.messages import one_line
from dos_plugin.method.options import check_choice, check_flag, check_path, check_whole
from dos_plugin.models.backbone import BRANCHES, Branch
from dos_plugin.probing.compare import probe_features, progress
from dos_plugin.probing.probe import ProbeSettings
from dos_plugin.probing.scans import (
    Scan,
    ScanSource,
    check_labels,
    class_names,
    count_classes,
    default_splits,
)
from dos_plugin.runs.run import Run
from dos_plugin.seeding import preserved_random
from dos_plugin.whole_file import write_whole

FILE = "probe.json"


class OnlineProbe(HOST.HookBase):  # type: ignore[name-defined, misc]
    """Probes the frozen backbone on a few labelled scans: before training, every few epochs, last.

    A linear and a kNN probe as those of ``dos-plugin probe``, with fewer scans and steps: their
    values are for comparing epochs of a run, and with epoch 0, the weights that it started from.
    The training is bitwise the same with and without the hook: it works on a copy of the backbone
    and puts all random generators back.

    Writes a log line, ``probe/linear_mIoU`` and ``probe/knn_mIoU`` (percent) over epochs to
    TensorBoard (and to W&B where a run is active), and ``probe.json`` in the run's folder, which a
    resumed run continues.

    With several ranks, rank 0 probes and the others wait at their next collective; the time must
    stay below the process group's timeout. The scans are read once, before training, and are kept
    in memory.

    Args:
        every: Epochs from one probe to the next.
        train_scans: Labelled scans to train the probes on, at most; evenly spread over the split.
        val_scans: Labelled scans to score them on, at most.
        data_root: Root of the data set; None is that of the training (of the first data set where
            there are several; the root of another one picks that).
        train_split: Split of ``train_scans``; None is the data set's usual name.
        val_split: Split of ``val_scans``; None is the data set's usual name.
        branch: ``"student"`` or ``"teacher"``.
        steps: Optimizer steps of the linear probe.
        save_best: Copy ``model/model_last.pth`` to ``model/model_best.pth`` when the linear probe
            has its best mIoU so far. The hook has to stand after ``CheckpointSaver``.
        required: False: where labelled scans are missing the hook says so once and does nothing,
            for configs that also train on scans without labels.

    Raises:
        ValueError: If an option is out of range, the model is no pretraining, the scans have no
            labels or labels of one class, or the hook stands at a wrong place in the list.
    """

    def __init__(
        self,
        every: int = 5,
        train_scans: int = 20,
        val_scans: int = 10,
        data_root: str | None = None,
        train_split: str | None = None,
        val_split: str | None = None,
        branch: Branch = "student",
        steps: int = 200,
        save_best: bool = False,
        required: bool = True,
    ) -> None:
        super().__init__()
        check_whole("every of OnlineProbe", every)
        check_whole("train_scans of OnlineProbe", train_scans)
        check_whole("val_scans of OnlineProbe", val_scans)
        check_whole("steps of OnlineProbe", steps)
        check_choice("branch of OnlineProbe", branch, BRANCHES)
        check_flag("save_best of OnlineProbe", save_best)
        check_flag("required of OnlineProbe", required)
        for name, value in (
            ("data_root", data_root),
            ("train_split", train_split),
            ("val_split", val_split),
        ):
            if value is not None:
                check_path(f"{name} of OnlineProbe", value)
        self.every = every
        self.train_scans = train_scans
        self.val_scans = val_scans
        self.data_root = data_root
        self.train_split = train_split
        self.val_split = val_split
        self.branch: Branch = branch
        self.settings = ProbeSettings(seeds=(0,), steps=steps, knn_bank=4000, knn_queries=4000)
        self.save_best = save_best
        self.required = required
        self.active = False
        self.history: list[dict[str, Any]] = []

    def before_train(self) -> None:
        """Check everything that can be wrong and read the scans; nothing is written yet."""
        check_after_loader(self)
        if self.save_best:
            self.check_saver()
        if not is_main_process():
            return
        with preserved_random():
            self.frozen = FrozenCopy(self.trainer, self.branch)
            try:
                self.read_scans()
            except ValueError as error:
                if self.required:
                    raise
                self.trainer.logger.warning(f"No probe while training: {error}")
                return
        self.active = True
        self.path = Path(self.trainer.cfg.save_path) / FILE
        if self.trainer.cfg.resume:
            self.history = read_history(self.path, self.trainer.start_epoch)
        if (wandb := open_wandb(self.trainer)) is not None:
            wandb.define_metric("probe/*", step_metric="Epoch")

    def before_epoch(self) -> None:
        """Probe what the run starts from; also an epoch that an interruption took the probe of."""
        start = self.trainer.start_epoch
        if self.trainer.epoch != start:
            return
        if is_main_process() and not self.trainer.cfg.resume:  # of an earlier run in this folder
            (Path(self.trainer.cfg.save_path) / FILE).unlink(missing_ok=True)
        if not self.active:
            return
        if start % self.every == 0 and start not in [entry["epoch"] for entry in self.history]:
            self.probe(start)

    def after_epoch(self) -> None:
        epoch = self.trainer.epoch + 1
        if self.active and (epoch % self.every == 0 or epoch == self.trainer.max_epoch):
            self.probe(epoch)

    def after_train(self) -> None:
        """Probe the last epoch if an interruption took its probe and no epoch is left to train."""
        last = self.trainer.max_epoch
        probed = [entry["epoch"] for entry in self.history]
        if self.active and self.trainer.start_epoch == last and last not in probed:
            self.probe(last)

    def read_scans(self) -> None:
        """Read the labelled scans of both splits.

        Raises:
            ValueError: naming the option at fault.
        """
        cfg = self.trainer.cfg
        run = Run(cfg, Path(cfg.save_path) / "config.py", None)
        splits = default_splits(run, self.data_root)
        chosen = (self.train_split or splits[0], self.val_split or splits[1])
        if chosen[0] == chosen[1]:
            raise ValueError(
                f"train_split and val_split of OnlineProbe are both {chosen[0]!r}: the probe would "
                "be scored on what it was trained on"
            )
        limits = (self.train_scans, self.val_scans)
        self.train, self.val = (
            self.read_split(run, f"{side}_split", split, limit)
            for side, split, limit in zip(("train", "val"), chosen, limits)
        )
        self.names = class_names(run, self.data_root)
        hint = "data_root, train_split and val_split of OnlineProbe name labelled scans"
        try:
            count_classes([*self.train, *self.val], self.names)
            check_labels(self.train, self.val)
        except ValueError as error:
            raise ValueError(f"OnlineProbe: {error}; {hint}; without any, remove it") from error

    def read_split(self, run: Run, option: str, split: str, limit: int) -> list[Scan]:
        """The scans of a split; ValueError that names the option if they cannot be read."""
        try:
            source = ScanSource(run, self.data_root, split, limit)
            none = np.empty(0, dtype=np.int64)  # the points on disk, of which a probe needs none
            lean = dict(origin_coord=none, origin_segment=none, inverse=none)
            return [replace(scan, **lean) for scan in progress(source, f"reading, {split}")]
        except Exception as error:  # the host's data sets raise whatever they like
            raise ValueError(
                f"{option}={split!r} of OnlineProbe: {one_line(error)}; set data_root, "
                "train_split and val_split to labelled scans, or remove the hook"
            ) from error

    def check_saver(self) -> None:
        """ValueError unless ``CheckpointSaver`` has written the epoch when the probe runs."""
        hooks = list(self.trainer.hooks)
        names = [type(hook).__name__ for hook in hooks]
        if "CheckpointSaver" not in names[: next(i for i, h in enumerate(hooks) if h is self)]:
            raise ValueError(
                "save_best of OnlineProbe copies what CheckpointSaver writes: put the hook after "
                f"CheckpointSaver, got hooks {', '.join(names)}"
            )
        if self.trainer.cfg.evaluate:
            raise ValueError(
                "save_best of OnlineProbe and evaluate=True both write model_best.pth: switch one "
                "of them off"
            )

    def probe(self, epoch: int) -> None:
        """Probe the present weights and report; once there is a trained epoch this ends no run."""
        started = time.perf_counter()
        try:
            with preserved_random():
                result = probe_features(
                    self.frozen.features(),
                    self.train,
                    self.val,
                    self.names,
                    self.settings,
                    what=f"epoch {epoch}",
                )
        except Exception as error:  # features with NaN, no memory left, whatever the host raises
            if epoch == 0:
                raise
            self.trainer.logger.warning(f"OnlineProbe: no probe of epoch {epoch}: {error}")
            return
        knn = result.pop("knn")
        entry = {"epoch": epoch, "linear": result, "knn": knn}
        best = best_miou(self.history)
        self.history.append(entry)
        write_history(self.path, self.history)
        self.report(entry, time.perf_counter() - started)
        if self.save_best and epoch and result["miou"] > best:
            self.keep_best(epoch, result["miou"])

    def report(self, entry: dict[str, Any], seconds: float) -> None:
        """Log line, TensorBoard and W&B."""
        self.trainer.logger.info(log_line(entry, self.history[0], seconds))
        scalars = {f"probe/{kind}_mIoU": entry[kind]["miou"] for kind in ("linear", "knn")}
        if self.trainer.writer is not None:
            for tag, value in scalars.items():
                self.trainer.writer.add_scalar(tag, value, entry["epoch"])
        if (wandb := open_wandb(self.trainer)) is not None:
            wandb.log({"Epoch": entry["epoch"], **scalars}, step=wandb.run.step)

    def keep_best(self, epoch: int, miou: float) -> None:
        """Copy the checkpoint of the epoch that was saved just now."""
        folder = Path(self.trainer.cfg.save_path) / "model"
        if epoch == self.trainer.start_epoch:  # a resumed run may have been read from elsewhere
            source = Path(self.trainer.cfg.weight)
        else:
            source = folder / "model_last.pth"
        write_whole(folder / "model_best.pth", lambda file: shutil.copyfile(source, file))
        self.trainer.logger.info(
            f"Probe: epoch {epoch} has the best linear mIoU so far, {miou:.1f}: model_best.pth"
        )


def best_miou(history: list[dict[str, Any]]) -> float:
    """Best linear mIoU of the trained epochs, -inf without any: epoch 0 has no checkpoint."""
    return max((e["linear"]["miou"] for e in history if e["epoch"]), default=float("-inf"))


def log_line(entry: dict[str, Any], first: dict[str, Any], seconds: float) -> str:
    """What a probe says: both mIoU, next to those of the first epoch that was probed."""
    parts = []
    for kind, name in (("linear", "linear"), ("knn", "kNN")):
        now, then = entry[kind]["miou"], first[kind]["miou"]
        part = f"{name} mIoU {now:.1f}"
        if entry is not first:
            part += f" (epoch {first['epoch']}: {then:.1f}, {now - then:+.1f})"
        parts.append(part)
    before = ", before training" if entry["epoch"] == 0 else ""
    return f"Probe of epoch {entry['epoch']}{before}: {', '.join(parts)}; {seconds:.1f} s"


def read_history(path: Path, epochs: int) -> list[dict[str, Any]]:
    """Entries of ``probe.json`` up to an epoch, [] if there is no file.

    Raises:
        ValueError: if the file is no list of probes.
    """
    if not path.is_file():
        return []
    try:
        history = json.loads(path.read_text())
        if not isinstance(history, list):
            raise TypeError
        best_miou(history)
        return [entry for entry in history if entry["epoch"] <= epochs]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: is no list of probes as OnlineProbe writes it, move it away"
        ) from error


def write_history(path: Path, history: list[dict[str, Any]]) -> None:
    """Write ``probe.json``, completely or not at all."""
    write_whole(path, lambda file: file.write_text(json.dumps(history, indent=1) + "\n"))
