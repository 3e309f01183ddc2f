"""``report.json`` and ``report.html`` out of what was read, measured and drawn of a run."""

from __future__ import annotations

import base64
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from dos_plugin import __version__
from dos_plugin.drawing.pictures import Picture
from dos_plugin.probing.compare import SOURCES
from dos_plugin.probing.prototypes import Usage
from dos_plugin.probing.scans import Scan
from dos_plugin.reports.evidence import Facts, mean_of_end
from dos_plugin.reports.figures import probe_curves, scan_palette
from dos_plugin.runs.config import plain
from dos_plugin.runs.record import Missing, Record, config_text

PACKAGES = ("torch", "numpy", "torch-pointcloud", "spconv", "mmengine-lite", "tensorboardX")

# A moving picture larger than this is named in the page, not put into it; bytes.
LARGEST_GIF = 6_000_000

HEADINGS = {
    "DOS pretraining": "DOS pretraining report",
    "segmentation run": "Segmentation report",
    "detection run": "Detection report",
    "exported": "Report of an exported backbone",
}

# Hooks that record what a report shows: tag or file, hook, what it shows.
HOOKS = (
    ("monitor/feat_std", "PrototypeMonitor", "collapse, and use of the prototypes, over the steps"),
    ("probe/linear_mIoU", "OnlineProbe", "a probe of the features over the epochs"),
    ("features/epoch_*.png", "FeaturePicture", "a picture of the features after every epoch"),
)


@dataclass
class Drawn:
    """What was measured and drawn of a run for its report.

    Attributes:
        names: class names.
        scan: the scan that the pictures show, None without pictures.
        usage: use of the prototypes, None where there are none.
        pictures: of the scan.
        charts: files by name.
        view: page with scans to turn around, beside the report; None where there is none.
    """

    names: Sequence[str] = ()
    scan: Scan | None = None
    usage: Usage | None = None
    pictures: Sequence[Picture] = ()
    charts: Mapping[str, Path] = field(default_factory=dict)
    view: Path | None = None


def write_page(record: Record, facts: Facts, drawn: Drawn, folder: Path) -> Path:
    """Write ``report.json`` and ``report.html`` into a folder; returns the path of the latter."""
    epochs = _epoch_pictures(record)
    _name_hooks(record, bool(epochs))
    content = _content(record, facts, drawn.usage)
    (folder / "report.json").write_text(json.dumps(content, indent=1) + "\n")
    html = _render(content, record, drawn, epochs)
    (folder / "report.html").write_text(html, encoding="utf-8")
    return folder / "report.html"


def versions() -> dict[str, str]:
    """Versions of everything that decides the figures."""
    found = {"dos-plugin": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _content(record: Record, facts: Facts, usage: Usage | None) -> dict[str, Any]:
    """What goes into report.json."""
    log, loss = record.log, record.curves.get("train_batch/loss")
    seconds = {name: round(value, 1) for name, value in facts.seconds.items()}
    content: dict[str, Any] = {
        "run": str(record.folder),
        "kind": record.kind,
        "model": record.model.get("type"),
        "state": record.state,
        "epoch": record.log.epoch or record.checkpoint_epoch,
        "epochs_done": record.epochs_done,
        "epochs": record.epochs,
        "checkpoint": str(record.checkpoint) if record.checkpoint else None,
        "checkpoint_epoch": record.checkpoint_epoch,
        "seed": record.run.seed if record.run else None,
        "seconds": {"total": round(sum(facts.seconds.values()), 1)} | seconds,
        "log_seconds": log.seconds,
        "peak_memory_mb": facts.peak_memory_mb,
        "versions": versions(),
        "commands": list(facts.commands),
        "verdict": asdict(facts.verdict) if facts.verdict else None,
        "missing": [missing.plain() for missing in record.missing],
        "warnings": [asdict(warned) for warned in log.warnings],
        "validations": [asdict(validation) for validation in log.validations],
        "test": asdict(log.test) if log.test else None,
        "config": _values(record.config),
    }
    if record.detection is not None:
        content["detection"] = asdict(record.detection)
    if record.box_pictures:
        content["box_pictures"] = [str(path) for path in record.box_pictures]
    if facts.probe is not None:
        content |= {"probe": facts.probe, "probe_settings": facts.probe_settings}
    history = probe_curves(record)
    if history:
        content["probe_history"] = {
            tag: dict(zip(map(str, curve.step.tolist()), curve.value.tolist()))
            for tag, curve in history.items()
        }
    if usage is not None:
        content["prototypes"] = usage.figures()
    if loss is not None and len(loss.step):
        content["training"] = {
            "steps": int(loss.step[-1]),
            "loss_first": float(loss.value[0]),
            "loss_last": mean_of_end(loss.value),
        }
    return _json(content)


def _values(config: Any) -> Any:
    """A config as plain values; None stays None."""
    return config.to_dict() if hasattr(config, "to_dict") else plain(config)


def _json(value: Any) -> Any:
    """The value with only what JSON has: NaN and infinities become None, others their text."""
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _epoch_pictures(record: Record) -> dict[str, Path]:
    """First and last picture of ``FeaturePicture``, and the moving one if it is small enough."""
    found: dict[str, Path] = {}
    drawn = []
    for path in sorted(record.folder.glob("features/epoch_*.png")):
        if record.is_earlier(path, "FeaturePicture"):
            continue
        if path.read_bytes()[-8:-4] == b"IEND":
            drawn.append(path)
        else:
            problem, remedy = "cut off", "It is drawn again when the run is resumed."
            name = f"features/{path.name}"
            record.missing.append(Missing(name, problem, "the features of that epoch", remedy))
    if drawn:
        found["first"], found["last"] = drawn[0], drawn[-1]
    for path in (record.folder / "features.gif", record.folder / "features" / "features.gif"):
        if not path.is_file() or record.is_earlier(path, "FeaturePicture"):
            continue
        if path.read_bytes()[-1:] == b";":
            found["large" if path.stat().st_size > LARGEST_GIF else "moving"] = path
    return found


def _name_hooks(record: Record, pictures: bool) -> None:
    """Name the hooks of this plugin that would have recorded more."""
    if record.kind != "DOS pretraining":
        return
    there = {*record.curves, *probe_curves(record), *(["features/epoch_*.png"] if pictures else [])}
    for what, hook, shows in HOOKS:
        if what not in there:
            remedy = f"Add dict(type='{hook}') to the hooks of the next run (docs/monitoring.md)."
            record.missing.append(Missing(what, "not recorded", shows, remedy, optional=True))


def _render(content: dict[str, Any], record: Record, drawn: Drawn, epochs: dict[str, Path]) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(Path(__file__).with_name("report.html").read_text("utf-8"))
    return template.render(
        report=content,
        heading=HEADINGS.get(record.kind, f"Report of a run of {record.model.get('type', '?')}"),
        sources=SOURCES,
        pictures=[picture._asdict() for picture in drawn.pictures],
        charts=drawn.charts,
        epochs=epochs,
        boxes=record.box_pictures,
        legend=_legend(drawn.scan, drawn.names) if drawn.scan and drawn.pictures else [],
        scan=drawn.scan,
        view=drawn.view,
        inline=_inline,
        validation=log_best(record),
        config_text=config_text(record),
    )


def log_best(record: Record) -> dict[str, Any] | None:
    """The test, or the last validation whose classes are in the log, by falling IoU."""
    found = [v for v in record.log.validations if v.iou]
    chosen = record.log.test if record.log.test and record.log.test.iou else None
    chosen = chosen or (found[-1] if found else None)
    if chosen is None:
        return None
    ordered = sorted(chosen.iou.items(), key=lambda item: -np.nan_to_num(item[1], nan=-1.0))
    return asdict(chosen) | {"iou": dict(ordered), "is_test": chosen is record.log.test}


def _legend(scan: Scan, names: Sequence[str]) -> list[tuple[str, str]]:
    """Name and colour of the classes of a scan."""
    palette = scan_palette(names)
    classes = [int(k) for k in np.unique(scan.origin_segment) if k >= 0]
    return [
        (names[k] if k < len(names) else f"class {k}", "#{:02x}{:02x}{:02x}".format(*palette[k]))
        for k in classes
        if k < len(palette)
    ]


def _inline(path: Path) -> str:
    """A PNG or GIF as a data URL, so that the page needs no other file."""
    kind = path.suffix.removeprefix(".")
    return f"data:image/{kind};base64," + base64.b64encode(path.read_bytes()).decode()
