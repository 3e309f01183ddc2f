"""Which charts a report has, and the healthy values drawn into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dos_plugin.drawing.render import FALLBACK_PALETTE, Palette
from dos_plugin.method import ZipfSinkhorn
from dos_plugin.method.health import effective_number
from dos_plugin.method.settings import NUM_PROTOTYPES, OUT_CHANNELS
from dos_plugin.probing.prototypes import Usage
from dos_plugin.probing.scans import dataset_config
from dos_plugin.runs.record import Record
from dos_plugin.runs.scalars import Curve
from dos_plugin.scenes.classes import CLASS_NAMES, PALETTE

if TYPE_CHECKING:  # needs matplotlib
    from dos_plugin.drawing.charts import Panel

PROBES = {"probe/linear_mIoU": "linear probe, mIoU", "probe/knn_mIoU": "kNN probe, mIoU"}
SCORES = {"val/mIoU": "mIoU", "val/mAcc": "mean accuracy", "val/allAcc": "accuracy"}


def draw_charts(record: Record, usage: Usage | None, folder: Path) -> dict[str, Path]:
    """Charts by name; those that the run has nothing for are left out.

    Raises:
        ModuleNotFoundError: without matplotlib.
    """
    from dos_plugin.drawing import charts

    curves = record.curves
    names = ("loss", "monitors", "probe", "validation", "features", "schedules", "usage")
    paths = {name: folder / f"{name}.png" for name in names}
    for path in paths.values():
        path.unlink(missing_ok=True)  # of an earlier report
    drawn = {
        "loss": charts.loss_chart(curves, paths["loss"]),
        "monitors": charts.monitor_chart(curves, panels(record), paths["monitors"]),
        "probe": charts.epoch_chart(probe_curves(record), PROBES, paths["probe"]),
        "validation": charts.epoch_chart(score_curves(record), SCORES, paths["validation"]),
        "schedules": charts.schedule_chart(curves, paths["schedules"]),
    }
    if "monitor/feat_std" not in curves:
        isotropic = out_channels(record) ** -0.5
        drawn["features"] = charts.feature_std_chart(curves, isotropic, paths["features"])
    if usage is not None:
        charts.usage_chart(usage, paths["usage"])
        drawn["usage"] = True
    return {name: paths[name] for name, there in drawn.items() if there}


def panels(record: Record) -> list[Panel]:
    """The monitors with their healthy values, as the run's config sets them."""
    from dos_plugin.drawing.charts import Panel

    prior = effective_of_prior(record)
    ratio = next((step.get("mask_ratio") for step in _transforms(record)), None)
    visible = 1 - ratio if isinstance(ratio, (int, float)) else None
    return [
        Panel("monitor/prior_kl", "KL to the Zipf prior, nats", 0.0, "0: as the prior"),
        Panel("monitor/effective_prototypes", "effective prototypes", prior, "prior"),
        Panel("monitor/feat_std", "feature std · √D", 1.0, "1: even"),
        Panel("monitor/rankme", "effective rank (RankMe)"),
        Panel("monitor/target_entropy", "entropy of the targets", 1.0, "1: collapsed", bad=True),
        Panel("monitor/dead_prototypes", "dead prototypes", 0.0, "0"),
        Panel("monitor/duplicate_prototypes", "duplicate prototypes", 0.0, "0"),
        Panel("monitor/same_matched", "matched, same view"),
        Panel("monitor/cross_matched", "matched, other view"),
        Panel("monitor/visible", "visible", visible, "1 - mask ratio"),
    ]


def probe_curves(record: Record) -> dict[str, Curve]:
    """Percent over epochs, of ``probe.json`` where it is there, else as logged."""
    found = {tag: record.curves[tag] for tag in PROBES if tag in record.curves}
    for tag, kind in zip(PROBES, ("linear", "knn")):
        points = {
            int(entry["epoch"]): float(entry[kind]["miou"])
            for entry in record.probe_history
            if isinstance(entry.get(kind), Mapping) and "miou" in entry[kind]
        }
        if points:
            found[tag] = Curve.of(points)
    return found


def score_curves(record: Record) -> dict[str, Curve]:
    """Percent over epochs, of the event files and the validations in the log."""
    points: dict[str, dict[int, float]] = {}
    for tag in SCORES:
        if tag in record.curves:
            step, value = record.curves[tag]
            points[tag] = dict(zip(step.tolist(), (100 * value).tolist()))
        for validation in record.log.validations:
            score = validation.scores.get(tag.removeprefix("val/"))
            if score is not None:
                points.setdefault(tag, {}).setdefault(validation.epoch, 100 * score)
    return {tag: Curve.of(values) for tag, values in points.items()}


def out_channels(record: Record) -> int:
    """D of the projection."""
    return int((record.model.get("head") or {}).get("out_channels") or OUT_CHANNELS)


def num_prototypes(record: Record) -> int:
    """K."""
    return int(record.model.get("num_prototypes") or NUM_PROTOTYPES)


def effective_of_prior(record: Record) -> float | None:
    """Effective number of prototypes of the run's Zipf prior; None for an unknown regulariser."""
    config = record.model.get("sinkhorn") or {}
    if config.get("type", "ZipfSinkhorn") != "ZipfSinkhorn":
        return None
    try:
        sinkhorn = ZipfSinkhorn(**{key: value for key, value in config.items() if key != "type"})
        return effective_number(sinkhorn.prior(num_prototypes(record)))
    except (TypeError, ValueError):  # another version's options
        return None


def _transforms(record: Record) -> list[Mapping[str, Any]]:
    """The steps of the training transform that mask."""
    try:
        steps = dataset_config(record.config or {})["transform"]
    except ValueError:
        return []
    return [step for step in steps if "mask_ratio" in step]


def scan_palette(names: Sequence[str]) -> Palette:
    """Colours of classes: those of the synthetic streets for their classes, else a default."""
    return PALETTE if tuple(names) == tuple(CLASS_NAMES) else FALLBACK_PALETTE
