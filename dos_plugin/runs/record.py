"""What is left of a run in its folder, whole or not, and a list of what is missing or broken."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dos_plugin.host import active_host
from dos_plugin.messages import one_line
from dos_plugin.runs.checkpoint import Checkpoint, read_checkpoint
from dos_plugin.runs.config import plain, read_literals
from dos_plugin.runs.detection import (
    PICTURES,
    SUMMARY,
    Scores,
    find_summary,
    is_detection,
    read_scores,
)
from dos_plugin.runs.log import TrainLog, read_train_log
from dos_plugin.runs.run import OF_A_TRAINING, Run, open_run
from dos_plugin.runs.scalars import Curve, joined, read_events

# A run whose log was silent for so many seconds is not running any more.
SILENCE = 900.0


@dataclass(frozen=True)
class Missing:
    """Something that a report cannot show.

    Attributes:
        what: the file or thing.
        problem: what was found.
        shows: what it would have shown.
        remedy: what to do.
        optional: it is not recorded by this run, which is no fault.
    """

    what: str
    problem: str
    shows: str
    remedy: str
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.problem}; it would show {self.shows}. {self.remedy}"

    def plain(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass
class Record:
    """What could be read of a run.

    Attributes:
        folder: the run's folder.
        config: the run's config (the active host's Config where there is one), or None.
        config_path: where the config was read, or should be.
        checkpoint: the newest checkpoint that can be read, or None.
        content: what is in it.
        kind: what was trained, see :data:`dos_plugin.runs.checkpoint.Kind`; ``"detection run"``
            where a detector was evaluated, ``"unknown"``.
        checkpoint_epoch: finished epochs in the checkpoint.
        log: the run's log, empty if it is missing.
        log_age: seconds since the log was last written to; None without a log.
        curves: scalars by tag, from event files and log.
        probe_history: entries of ``probe.json``.
        detection: scores of a detector, None if there are none.
        box_pictures: pictures of ``dos-plugin boxes``.
        missing: what cannot be shown, in the order in which it was looked for.
    """

    folder: Path
    config: Any | None = None
    config_path: Path = Path("config.py")
    checkpoint: Path | None = None
    content: Checkpoint | None = None
    kind: str = "unknown"
    checkpoint_epoch: int = 0
    log: TrainLog = field(default_factory=TrainLog)
    log_age: float | None = None
    curves: dict[str, Curve] = field(default_factory=dict)
    probe_history: list[dict[str, Any]] = field(default_factory=list)
    detection: Scores | None = None
    box_pictures: list[Path] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    @property
    def run(self) -> Run | None:
        """The run for those who need a config, None if there is none."""
        if self.config is None:
            return None
        return Run(self.config, self.config_path, self.checkpoint, self.content)

    @property
    def epochs(self) -> int:
        """Epochs of the run, 0 if nothing says so."""
        return self.log.max_epoch or int((self.config or {}).get("eval_epoch") or 0)

    @property
    def epochs_done(self) -> int:
        """Finished epochs, by the log if it says so, else by the checkpoint."""
        return self.log.epochs_done if self.log.max_epoch else self.checkpoint_epoch

    @property
    def state(self) -> str:
        """``"finished"``, ``"running"``, ``"unfinished"`` or ``"unknown"``."""
        if not self.epochs:
            return "unknown"
        if self.epochs_done >= self.epochs:
            return "finished"
        young = self.log_age is not None and self.log_age < SILENCE
        return "running" if young and not self.log.stopped else "unfinished"

    @property
    def model(self) -> Mapping[str, Any]:
        """``model`` of the config, empty if there is none."""
        found = (self.config or {}).get("model")
        return found if isinstance(found, Mapping) else {}

    def is_earlier(self, path: Path, hook: str) -> bool:
        """Whether a hook's file is of an earlier run in the folder: this one was begun after it,
        which writes ``config.py``, and without the hook."""
        begun = self.folder / "config.py"
        if self.config is None or not begun.is_file():
            return False
        hooks = [entry.get("type") for entry in self.config.get("hooks") or ()]
        return hook not in hooks and path.stat().st_mtime < begun.stat().st_mtime

    @contextmanager
    def attempt(self, what: str, shows: str, remedy: str) -> Iterator[None]:
        """Go on after any error in the block, and remember it as something missing.

        Damaged files fail in any way, hence any error.
        """
        try:
            yield
        except Exception as error:
            self.missing.append(Missing(what, one_line(error), shows, remedy))


def read_record(path: str | Path, config: str | Path | None = None) -> Record:
    """Read what there is of a run.

    Args:
        path: the run's folder, a checkpoint, or a file of ``dos-plugin export``.
        config: config file, if it does not lie in the run's folder.

    Raises:
        FileNotFoundError: if there is no such path, or nothing of a run in the folder.
        ValueError: if a checkpoint given by name cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        if not any(next(path.glob(p), None) for p in OF_A_TRAINING) and is_detection(path):
            record = Record(path, kind="detection run")  # of a host whose files are not known here
            _read_detection(record)
            return record
        _check_folder(path)
        record = Record(path, config_path=Path(config) if config else path / "config.py")
        _read_log(record)
        _read_config(record)
        _read_checkpoint(record)
    else:  # a file given by name must be right
        run = open_run(path, config)
        if run.checkpoint is None:
            raise ValueError(f"{path}: got a config, expected the folder of a run or a checkpoint")
        folder = path.parent.parent if path.parent.name == "model" else path.parent
        record = Record(folder, run.config, run.config_path, run.checkpoint)
        _take(record, run.trained)
        if record.kind != "exported":
            _read_log(record)
    if record.log.cut and record.state not in ("running", "finished"):
        remedy = "Copy it again, if it is whole elsewhere."
        entry = Missing("train.log", "ends within a line", "how the run went on", remedy)
        record.missing.append(entry)
    if record.log.max_epoch and record.checkpoint_epoch > record.log.epochs_done:
        problem = (
            f"{record.log.epochs_done} epochs are done in it, {record.checkpoint_epoch} in the "
            "checkpoint"
        )
        shows = "all epochs; one of the two files is of another run, or the log was begun anew"
        record.missing.append(Missing("train.log", problem, shows, "Look which of them is meant."))
    if record.kind == "unknown":
        record.kind = kind_by_config(record.model)
    if record.kind != "exported":
        _read_curves(record)
        _read_probe_history(record)
    if path.is_dir() and record.kind in ("other", "unknown") and is_detection(path):
        record.kind = "detection run"
        _read_detection(record)
    return record


def kind_by_config(model: Mapping[str, Any]) -> str:
    """What ``model`` of a config trains, by its type; ``"unknown"`` without a type."""
    name = str(model.get("type") or "")
    if name == "DOS-v1m1":
        return "DOS pretraining"
    if "Segmentor" in name:
        return "segmentation run"
    return "other" if name else "unknown"


def _check_folder(folder: Path) -> None:
    if any(next(folder.glob(pattern), None) for pattern in OF_A_TRAINING):
        return
    names = ("config.py", "train.log")
    below = sorted({path.parent for name in names for path in folder.glob(f"*/{name}")})
    hint = f"; runs lie in {', '.join(map(str, below[:5]))}" if below else ""
    raise FileNotFoundError(
        f"{folder}: nothing of a run there, expected config.py, train.log, model/*.pth or event "
        f"files, which training writes into its save_path{hint}"
    )


def _read_log(record: Record) -> None:
    path = record.folder / "train.log"
    shows = "how far the run came, its warnings, its validations by class"
    if not path.is_file():
        record.missing.append(
            Missing("train.log", "not there", shows, "Copy it from where the run was made.")
        )
        return
    with record.attempt("train.log", shows, "Look whether it is a log of training."):
        record.log = read_train_log(path)
        record.log_age = max(0.0, time.time() - path.stat().st_mtime)
        if not record.log.max_epoch:
            raise ValueError("no line about a training step in it")


def _read_config(record: Record) -> None:
    """The config by the host, else its plain values, else what the log repeats of it."""
    name, why = record.config_path.name, ""
    for read in (_by_host, _by_values, _from_log):
        try:
            record.config = read(record)
        except Exception as error:  # a damaged file fails in any way, and it may run any code
            why = why or one_line(error)
            continue
        if read is _from_log:
            remedy = "The config is taken from train.log, which repeats it."
            record.missing.append(Missing(name, why, "the settings", remedy))
        return
    shows = "the settings, without which the network cannot be built, nor scans be read"
    remedy = "Copy the run's own config there, or name another one with --config."
    record.missing.append(Missing(name, why, shows, remedy))


def _by_host(record: Record) -> Any:
    if not record.config_path.is_file():
        raise FileNotFoundError("not there")
    return _with_model(active_host().Config.fromfile(str(record.config_path)))


def _by_values(record: Record) -> Any:
    values = _with_model(read_literals(record.config_path))
    try:
        return active_host().Config(values)
    except ImportError:  # no host: the values can be shown at least
        return values


def _from_log(record: Record) -> Any:
    if record.log.config_text is None:
        raise ValueError("train.log repeats no config")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.py"
        file.write_text(record.log.config_text)
        return _by_values(Record(record.folder, config_path=file))


def _with_model(config: Any) -> Any:
    if not isinstance(config.get("model"), Mapping):
        raise ValueError("has no model, is it cut off?")
    return config


def _read_checkpoint(record: Record) -> None:
    """The first checkpoint that can be read: the last one, the best one, kept epochs."""
    folder = record.folder / "model"
    kept = sorted(folder.glob("epoch_*.pth"), key=lambda path: path.stat().st_mtime, reverse=True)
    named = [folder / f"model_{name}.pth" for name in ("last", "best")]
    shows = "features, prototypes and probe"
    for path in [*(path for path in named if path.is_file()), *kept]:
        remedy = "Copy it again from where it was made, or resume the run."
        with record.attempt(f"model/{path.name}", shows, remedy):
            _take(record, read_checkpoint(path))
            return
    if not named[0].is_file():
        problem = "no checkpoint there"
        remedy = "Wait for the end of the run's first epoch, or copy the file there."
        record.missing.append(Missing("model/model_last.pth", problem, shows, remedy))


def _take(record: Record, content: Checkpoint) -> None:
    record.checkpoint, record.content, record.kind = content.path, content, content.kind
    if not content.exported:
        record.checkpoint_epoch = content.epoch or 0


def _read_curves(record: Record) -> None:
    """Scalars of the event files, and what only the log has."""
    events: dict[str, Curve] = {}
    shows = "schedules and monitors"
    instead = "Losses come from train.log instead. " if record.log.curves else ""
    name = "events.out.tfevents.*"
    if not any(record.folder.glob(name)):
        remedy = f"{instead}Install tensorboardX where the run is trained, or copy the files."
        record.missing.append(Missing(name, "not there", shows, remedy))
    else:
        with record.attempt(name, shows, f"{instead}pip install tensorboardX."):
            events, wrong = read_events(record.folder)
            for file, what in wrong.items():
                remedy = (
                    "Nothing while the run goes on, which writes it in pieces."
                    if record.state == "running"
                    else f"{instead}Copy the file again, if it is whole elsewhere."
                )
                record.missing.append(Missing(file.name, what, "the end of the curves", remedy))
    # The log's monitors are means over epochs, over batches: no continuation of measurements.
    log = {
        tag: curve
        for tag, curve in record.log.curves.items()
        if not (tag.startswith("monitor/") and tag in events)
    }
    record.curves = joined(log, events)


def _read_probe_history(record: Record) -> None:
    path = record.folder / "probe.json"
    if not path.is_file() or record.is_earlier(path, "OnlineProbe"):
        return
    with record.attempt("probe.json", "the probe over the epochs", "Remove it if it is broken."):
        content = json.loads(path.read_text())
        if not isinstance(content, list) or not all(
            isinstance(entry, dict) and "epoch" in entry for entry in content
        ):
            raise ValueError("expected a list of entries with an epoch")
        record.probe_history = content


def _read_detection(record: Record) -> None:
    """Scores and pictures of an evaluated detector."""
    shows, path = "mAP, and AP by class", find_summary(record.folder)
    if path is None:
        remedy = "Copy the file that the nuScenes devkit writes into the folder."
        record.missing.append(Missing(SUMMARY, "not there", shows, remedy, optional=True))
    else:
        with record.attempt(str(path.relative_to(record.folder)), shows, "Evaluate again."):
            record.detection = read_scores(path)
    for picture in sorted(record.folder.glob(PICTURES)):
        if picture.read_bytes()[-8:-4] == b"IEND":
            record.box_pictures.append(picture)
        else:
            remedy = "Draw it again with dos-plugin boxes."
            record.missing.append(Missing(picture.name, "cut off", "boxes on a scan", remedy))
    if not record.box_pictures:
        remedy = f"dos-plugin boxes SCAN --truth … --results … --out {record.folder / 'boxes.png'}"
        record.missing.append(
            Missing(PICTURES, "not there", "boxes on a scan", remedy, optional=True)
        )


def config_text(record: Record) -> str | None:
    """The config as text, None if there is none."""
    if record.config is None:
        return None
    text = getattr(record.config, "pretty_text", None)
    if text:
        return str(text)
    values = plain(record.config)
    return "\n".join(f"{key} = {value!r}" for key, value in values.items())
