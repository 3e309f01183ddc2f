"""Charts of a report: training curves, schedules, prototype usage."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from dos_plugin.prototypes import Usage
from dos_plugin.scalars import Curve, smooth

BLUE, ORANGE, GREEN, GREY = "#2563a8", "#d9730d", "#2f8f5b", "#8a8f98"

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#b8bcc4",
    "axes.labelcolor": "#3c4048",
    "axes.grid": True,
    "grid.color": "#e7e9ee",
    "grid.linewidth": 0.8,
    "xtick.color": "#5a5f69",
    "ytick.color": "#5a5f69",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.dpi": 150,
}

LOSSES = {
    "train_batch/loss": ("total", BLUE),
    "train_batch/same_view_loss": ("same view", GREEN),
    "train_batch/cross_view_loss": ("other view", ORANGE),
}

SCHEDULES = {
    "params/lr": "learning rate",
    "params/wd": "weight decay",
    "params/teacher_temp": "teacher temperature",
    "params/momentum": "teacher momentum",
}


def loss_chart(curves: Mapping[str, Curve], path: Path) -> bool:
    """Draw the losses; False, and no file, if the run logged none."""
    present = {tag: look for tag, look in LOSSES.items() if tag in curves}
    if not present:
        return False
    with _figure(path, 7.2, 3.0) as axes:
        for tag, (name, colour) in present.items():
            step, value = curves[tag]
            axes.plot(step, value, color=colour, alpha=0.18, linewidth=0.8)
            axes.plot(step, smooth(value, _window(value)), color=colour, label=name)
        axes.set(xlabel="training step", ylabel="loss (nats)", xlim=(0, None))
        _limit_to_bulk(axes, [curves[tag].value for tag in present])
        axes.legend(ncols=3, loc="upper right")
    return True


def feature_std_chart(curves: Mapping[str, Curve], isotropic: float, path: Path) -> bool:
    """Draw the feature standard deviation beside 1/sqrt(D); False if the run logged none."""
    curve = curves.get("train_batch/feat_std")
    if curve is None:
        return False
    with _figure(path, 7.2, 2.6) as axes:
        axes.plot(*curve, color=BLUE, alpha=0.2, linewidth=0.8)
        axes.plot(curve.step, smooth(curve.value, _window(curve.value)), color=BLUE, label="run")
        axes.axhline(isotropic, color=GREY, linestyle="--", label="1/√D, evenly spread")
        axes.axhline(0, color="#c0392b", linewidth=1, label="0, collapsed")
        axes.set(xlabel="training step", ylabel="standard deviation", xlim=(0, None))
        axes.legend(ncols=3, loc="lower right")
    return True


def schedule_chart(curves: Mapping[str, Curve], path: Path) -> bool:
    """Draw the schedules as small multiples; False if the run logged none."""
    present = [tag for tag in SCHEDULES if tag in curves]
    if not present:
        return False
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(present), figsize=(2.5 * len(present), 1.9))
        for axes, tag in zip(np.atleast_1d(row), present):
            axes.plot(*curves[tag], color=BLUE)
            axes.set_title(SCHEDULES[tag], fontsize=9, color="#3c4048")
            axes.tick_params(labelsize=8)
            axes.ticklabel_format(axis="y", useOffset=False)
            axes.locator_params(nbins=4)
        _save(figure, path)
    return True


def usage_chart(usage: Usage, path: Path) -> None:
    """Rank plot of the mass of prototypes, both axes logarithmic."""
    rank = np.arange(1, len(usage.prior) + 1)
    lines: tuple[tuple[Any, str, str, dict], ...] = (
        (usage.prior, "Zipf prior w", GREY, dict(linestyle="--", linewidth=3, alpha=0.6)),
        (usage.assigned, "assigned by Zipf-Sinkhorn", BLUE, {}),
        (usage.own, "teacher alone, without Sinkhorn", ORANGE, {}),
    )
    with _figure(path, 7.2, 3.4) as axes:
        for mass, name, colour, look in lines:
            axes.loglog(rank, mass.sort(descending=True).values, color=colour, label=name, **look)
        axes.set(xlabel="rank of the prototype", ylabel="share of all points")
        axes.legend()


@contextmanager
def _figure(path: Path, width: float, height: float):
    """Axes of a figure that is saved at the end; width and height in inches."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(width, height))
        yield axes
        _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _window(value: np.ndarray) -> int:
    return max(1, len(value) // 40)


def _limit_to_bulk(axes: plt.Axes, values: list[np.ndarray]) -> None:
    """Cut the top off where a few early steps would flatten all the rest."""
    joined = np.concatenate(values)
    joined = joined[np.isfinite(joined)]
    if len(joined) > 100:
        high, low = np.percentile(joined, 99.5), joined.min()
        axes.set_ylim(max(0, low - 0.05 * (high - low)), high + 0.1 * (high - low))
