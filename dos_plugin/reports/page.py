"""``report.json`` and ``report.html`` out of what was read, measured and drawn of a run."""

from __future__ import annotations

import base64
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from dos_plugin import __version__
from dos_plugin.hooks.limits import LIMITS, Alarm
from dos_plugin.probing.compare import SOURCES
from dos_plugin.probing.prototypes import Usage
from dos_plugin.probing.scans import Scan
from dos_plugin.reports.figures import num_prototypes, out_channels, probe_curves, score_curves
from dos_plugin.reports.verdict import Evidence, Gain, Verdict
from dos_plugin.runs.config import plain
from dos_plugin.runs.record import Missing, Record, config_text

PACKAGES = ("torch", "numpy", "torch-pointcloud", "spconv", "mmengine-lite", "tensorboardX")

# A moving picture larger than this is named in the page, not put into it; bytes.
LARGEST_GIF = 6_000_000

HEADINGS = {
    "DOS pretraining": "DOS pretraining report",
    "segmentation run": "Segmentation report",
    "exported": "Report of an exported backbone",
}

# Hooks that record what a report shows: tag or file, hook, what it shows.
HOOKS = (
    ("monitor/feat_std", "PrototypeMonitor", "collapse, and use of the prototypes, over the steps"),
    ("probe/linear_mIoU", "OnlineProbe", "a probe of the features over the epochs"),
    ("features/epoch_*.png", "FeaturePicture", "a picture of the features after every epoch"),
)


@dataclass
class Facts:
    """What a report says beyond what it can read from the run itself.

    Attributes:
        probe: result of :func:`dos_plugin.probing.compare.probe_run`, None without labels.
        probe_settings: settings and scans of the probe, as plain values.
        commands: commands that made the run, one a line.
        seconds: wall-clock seconds by phase.
        peak_memory_mb: largest memory of all processes together, MiB.
        verdict: set by the report.
    """

    probe: dict[str, Any] | None = None
    probe_settings: dict[str, Any] = field(default_factory=dict)
    commands: Sequence[str] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    verdict: Verdict | None = None


def write_page(
    record: Record,
    facts: Facts,
    usage: Usage | None,
    names: Sequence[str],
    scan: Scan | None,
    pictures: Sequence[Any],
    charts: dict[str, Path],
    folder: Path,
) -> Path:
    """Write ``report.json`` and ``report.html`` into a folder; returns the path of the latter."""
    epochs = _epoch_pictures(record)
    _name_hooks(record, bool(epochs))
    content = _content(record, facts, usage)
    (folder / "report.json").write_text(json.dumps(content, indent=1) + "\n")
    html = _render(content, record, names, scan, pictures, charts, epochs)
    (folder / "report.html").write_text(html, encoding="utf-8")
    return folder / "report.html"


def evidence_of(record: Record, facts: Facts, usage: Usage | None) -> Evidence:
    """What a run's verdict rests on.

    Monitors are the last logged values, where there is a limit the better of the last two; without
    ``PrototypeMonitor`` they are ``feat_std`` of the last batches, and what was measured of the
    checkpoint here.
    """
    curves = record.curves
    last = {}
    for tag, curve in curves.items():
        if tag.startswith("monitor/"):
            name = tag.removeprefix("monitor/")
            last[name] = _lasting(name, curve.value)
    if record.kind == "DOS pretraining":
        if usage is not None:
            figures = usage.figures()
            scale = float(len(usage.feat_std)) ** 0.5
            last.setdefault("prior_kl", figures["kl_to_prior"])
            last.setdefault("effective_prototypes", figures["effective_prototypes"])
            last.setdefault("feat_std", figures["feature_std"] * scale)
        elif "train_batch/feat_std" in curves:
            mean = float(_end(curves["train_batch/feat_std"].value))
            last.setdefault("feat_std", mean * out_channels(record) ** 0.5)
        for name in ("dead", "duplicate"):
            if f"{name}_prototypes" in last:
                last[f"{name}_share"] = last[f"{name}_prototypes"] / num_prototypes(record)
    loss = curves.get("train_batch/loss")
    config = record.config or {}
    if ((config.get("model") or {}).get("sinkhorn") or {}).get("num_iters") == 0:
        last.pop("prior_kl", None)  # nothing asks for the prior then
    hooks = [hook for hook in config.get("hooks") or () if hook.get("type") == "PrototypeMonitor"]
    return Evidence(
        kind=record.kind,
        loss=float(loss.value[-1]) if loss is not None else None,
        monitors=last,
        gain=_gain(record, facts),
        epochs_done=record.epochs_done,
        epochs=record.epochs,
        limits=Alarm(hooks[0].get("limits") if hooks else None).limits,
    )


def versions() -> dict[str, str]:
    """Versions of everything that decides the figures."""
    found = {"dos-plugin": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _gain(record: Record, facts: Facts) -> Gain | None:
    """The probe made for this report, else that of the run; of a segmentation its validations."""
    probe = facts.probe or {}
    if "dos" in probe and "random" in probe:
        dos, random = probe["dos"], probe["random"]
        several = len(dos["miou_seeds"]) > 1
        spread = math.hypot(dos["miou_std"], random["miou_std"]) if several else None
        what = "mIoU of a linear probe on the frozen features"
        return Gain(what, random["miou"], dos["miou"], "random weights", spread)
    if record.kind == "segmentation run":
        curve = score_curves(record).get("val/mIoU")
        if curve is None or len(curve.step) < 2:
            return None
        first = f"the first one, epoch {curve.step[0]}"
        best = float(curve.value.max())
        return Gain("mIoU of the best validation", float(curve.value[0]), best, first)
    for tag, curve in probe_curves(record).items():
        if len(curve.step) > 1 and curve.step[0] == 0:
            kind = "linear" if "linear" in tag else "kNN"
            what = f"mIoU of the run's own {kind} probe, epoch {curve.step[-1]}"
            before, after = float(curve.value[0]), float(curve.value[-1])
            return Gain(what, before, after, "before training")
    return None


def _lasting(name: str, value: np.ndarray) -> float:
    """The last value; of those with a limit the better of the last two, as one batch may be odd."""
    limit = LIMITS.get(name.replace("_prototypes", "_share"))
    if limit is None or np.isnan(value[-1]):
        return float(value[-1])
    best = np.nanmax if limit.side == "below" else np.nanmin
    return float(best(value[-2:]))


def _end(value: np.ndarray) -> float:
    """Mean of the last fortieth."""
    return float(value[-max(1, len(value) // 40) :].mean())


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
            "loss_last": _end(loss.value),
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


def _render(
    content: dict[str, Any],
    record: Record,
    names: Sequence[str],
    scan: Scan | None,
    pictures: Sequence[Any],
    charts: dict[str, Path],
    epochs: dict[str, Path],
) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(Path(__file__).with_name("report.html").read_text("utf-8"))
    return template.render(
        report=content,
        heading=HEADINGS.get(record.kind, f"Report of a run of {record.model.get('type', '?')}"),
        sources=SOURCES,
        pictures=[picture._asdict() for picture in pictures],
        charts=charts,
        epochs=epochs,
        legend=_legend(scan, names) if scan is not None and pictures else [],
        scan=scan,
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
    from dos_plugin.drawing.pictures import scan_palette

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
