"""What a run's ``train.log`` says: losses, validations, warnings, how far it came.

Both hosts write the same lines after slightly different stamps::

    [2026-01-31 12:00:00,000 INFO] Train: [1/36][2/40] Data ... Remain 00:20:24 loss: 4.3 Lr: 0.1
    [2026-01-31 12:00:00,000 INFO evaluator.py line 187 4711] Val result: mIoU/mAcc 0.2/0.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from dos_plugin.runs.scalars import Curve

STAMP = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ ([A-Z]+)(?: \S+ line \d+ \d+)?\] ?(.*)")
TRAIN = re.compile(r"Train: \[(\d+)/(\d+)\]\[(\d+)/(\d+)\] (.*)")
SCALAR = re.compile(r"([\w./-]+): (-?(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|nan|inf))(?= |$)")
RESULT = re.compile(r"Val result: (\S+) ([\d./naif]+?)\.?$")
# The lines of OnlineProbe and PrototypeMonitor.
PROBE = re.compile(r"Probe of epoch (\d+).*?: linear mIoU ([\d.]+).*?, kNN mIoU ([\d.]+)")
MONITOR = {
    "feat_std": re.compile(r"feature std ([\d.]+)"),
    "rankme": re.compile(r"RankMe ([\d.]+)"),
    "target_entropy": re.compile(r"target entropy ([\d.]+)"),
    "prior_kl": re.compile(r"KL to prior ([\d.]+)"),
    "effective_prototypes": re.compile(r"effective prototypes ([\d.]+)"),
    "dead_prototypes": re.compile(r"dead (\d+)"),
    "duplicate_prototypes": re.compile(r"duplicate (\d+)"),
}
CLASS = re.compile(r"Class_(\d+) ?- ?(.+) Result: iou/accuracy ([\d.nan]+)/([\d.nan]+)")


@dataclass
class Validation:
    """One validation.

    Attributes:
        epoch: epochs trained before it.
        scores: by the host's names, as ``mIoU``; shares of 1.
        iou: by class name; shares of 1.
    """

    epoch: int
    scores: dict[str, float]
    iou: dict[str, float] = field(default_factory=dict)


@dataclass
class Warned:
    """A warning or an error, numbers in it left aside.

    Attributes:
        level: ``WARNING`` or ``ERROR``.
        text: the message as it was said the last time.
        count: how often it was said.
        epoch: epoch under way when it was said first, 0 before training.
    """

    level: str
    text: str
    count: int
    epoch: int


@dataclass
class TrainLog:
    """A log, read.

    Attributes:
        curves: scalars by the tags that they have in TensorBoard. Those of the monitors are means
            of epochs, at the batch where the epoch ends.
        epoch: epoch of the last line about a batch, from 1; 0 if there is none.
        max_epoch: epochs of the run; 0 if no line says so.
        step: batch of the epoch, and batches of an epoch.
        epochs_done: epochs whose end is in the log.
        validations: in the order of their epochs.
        test: the validation after the last epoch that the host's ``PreciseEvaluator`` makes.
        warnings: warnings and errors, in the order in which they were said first.
        config_text: the config as the run wrote it into the log, None if it did not.
        stopped: the last message is an error.
        seconds: from the first line to the last.
        cut: the file ends within a line.
    """

    curves: dict[str, Curve] = field(default_factory=dict)
    epoch: int = 0
    max_epoch: int = 0
    step: tuple[int, int] = (0, 0)
    epochs_done: int = 0
    validations: list[Validation] = field(default_factory=list)
    test: Validation | None = None
    warnings: list[Warned] = field(default_factory=list)
    config_text: str | None = None
    stopped: bool = False
    seconds: float = 0.0
    cut: bool = False


def read_train_log(path: str | Path) -> TrainLog:
    """Read a ``train.log``; lines that are not understood are passed over.

    Where a resumed run repeats an epoch, the later lines count.

    Raises:
        OSError: if the file cannot be read.
    """
    log = TrainLog()
    values: dict[str, dict[int, float]] = {}
    validations: dict[int, Validation] = {}
    current: Validation | None = None
    precise = False
    times: list[str] = []
    for time, level, message in _messages(Path(path), log):
        times = [times[0] if times else time, time]
        log.stopped = level in ("ERROR", "CRITICAL")
        if train := TRAIN.match(message):
            precise = False
            log.epoch, log.max_epoch = int(train[1]), int(train[2])
            log.step = int(train[3]), int(train[4])
            log.epochs_done = log.epoch - 1
            number = (log.epoch - 1) * log.step[1] + log.step[0]
            for key, value in SCALAR.findall(train[5]):
                tag = "params/lr" if key == "Lr" else f"train_batch/{key}"
                values.setdefault(tag, {})[number] = float(value)
        elif message.startswith("Train result:"):
            log.epochs_done = log.epoch
        elif "Start Precise Evaluation" in message:
            precise = True
        elif result := RESULT.match(message):
            scores = dict(zip(result[1].split("/"), map(float, result[2].split("/"))))
            current = Validation(log.epoch, scores)
            if precise:
                log.test = current
            else:
                validations[log.epoch] = current
        elif (found := CLASS.match(message)) and current is not None:
            current.iou[found[2]] = float(found[3])
        elif probe := PROBE.match(message):
            for tag, value in zip(("probe/linear_mIoU", "probe/knn_mIoU"), probe.groups()[1:]):
                values.setdefault(tag, {})[int(probe[1])] = float(value)
        elif message.startswith("Monitor: "):
            for name, pattern in MONITOR.items():
                if measured := pattern.search(message):
                    points = values.setdefault(f"monitor/{name}", {})
                    points[log.epoch * log.step[1]] = float(measured[1])
        elif message.startswith("Config:"):
            log.config_text = message.removeprefix("Config:").strip() + "\n"
        elif level in ("WARNING", "ERROR", "CRITICAL"):
            _count(log, level, message)
    log.curves = {tag: Curve.of(points) for tag, points in values.items()}
    log.validations = [validations[epoch] for epoch in sorted(validations)]
    if times:
        first, last = (datetime.fromisoformat(time) for time in times)
        log.seconds = (last - first).total_seconds()
    return log


def _messages(path: Path, log: TrainLog) -> Iterator[tuple[str, str, str]]:
    """Time, level and text of every message; lines without a stamp belong to the one before."""
    stamp: tuple[str, str] | None = None
    lines: list[str] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.endswith("\n"):  # its numbers may have lost digits
                log.cut = True
                break
            found = STAMP.match(line)
            if not found:
                lines.append(line.rstrip())
                continue
            if stamp:
                yield *stamp, "\n".join(lines).strip()
            stamp, lines = (found[1], found[2]), [found[3]]
    if stamp:
        yield *stamp, "\n".join(lines).strip()


def _count(log: TrainLog, level: str, message: str) -> None:
    lines = [line for line in message.splitlines() if line.strip()]
    # Of a traceback the last line says what happened.
    text = (lines[-1] if any("Traceback" in line for line in lines) else " ".join(lines)).strip()
    same = re.sub(r"[\d.]+", "#", text)
    for warned in log.warnings:
        if warned.level == level and re.sub(r"[\d.]+", "#", warned.text) == same:
            warned.count, warned.text = warned.count + 1, text
            return
    log.warnings.append(Warned(level, text, 1, log.epoch))
