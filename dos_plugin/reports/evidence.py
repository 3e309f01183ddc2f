"""What a report is told, and what of a run its verdict rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dos_plugin.hooks.limits import LIMITS, Alarm
from dos_plugin.probing.prototypes import Usage
from dos_plugin.reports.figures import num_prototypes, out_channels, probe_curves, score_curves
from dos_plugin.reports.verdict import Evidence, Gain, Verdict
from dos_plugin.runs.record import Record


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
            mean = float(mean_of_end(curves["train_batch/feat_std"].value))
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


def _gain(record: Record, facts: Facts) -> Gain | None:
    """The probe made for this report, else that of the run; of a segmentation its validations."""
    probe = facts.probe or {}
    if "student" in probe and "random" in probe:
        student, random = probe["student"], probe["random"]
        several = len(student["miou_seeds"]) > 1
        spread = math.hypot(student["miou_std"], random["miou_std"]) if several else None
        what = "mIoU of a linear probe on the frozen features"
        return Gain(what, random["miou"], student["miou"], "random weights", spread)
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


def mean_of_end(value: np.ndarray) -> float:
    """Mean of the last fortieth."""
    return float(value[-max(1, len(value) // 40) :].mean())
