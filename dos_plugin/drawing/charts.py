"""Charts of a report: training curves, monitors, scores, schedules, prototype usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from dos_plugin.probing.prototypes import Usage
from dos_plugin.runs.scalars import Curve, smooth

BLUE, ORANGE, GREEN, GREY, RED = "#2563a8", "#d9730d", "#2f8f5b", "#8a8f98", "#c0392b"

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

COLOURS = (BLUE, GREEN, ORANGE, "#8a5fb5", "#b5485d", "#5b7f95")

LOSSES = {
    "train_batch/loss": "total",
    "train_batch/same_view_loss": "same view",
    "train_batch/cross_view_loss": "other view",
}

SCHEDULES = {
    "params/lr": "learning rate",
    "params/wd": "weight decay",
    "params/teacher_temp": "teacher temperature",
    "params/momentum": "teacher momentum",
}


class Panel(NamedTuple):
    """One monitor: its title, and a dashed line at its healthy value (or the ``bad`` one)."""

    tag: str
    title: str
    reference: float | None = None
    name: str = "healthy"
    bad: bool = False


def loss_chart(curves: Mapping[str, Curve], path: Path) -> bool:
    """Draw all losses over the batches; False, and no file, if the run logged none."""
    logged = [tag for tag in sorted(curves) if tag.startswith("train_batch/") and "loss" in tag]
    present = [tag for tag in LOSSES if tag in logged]
    present += [tag for tag in logged if tag not in LOSSES]
    if not present:
        return False
    with _figure(path, 7.2, 3.0) as axes:
        for tag, colour in zip(present, COLOURS):
            name = LOSSES.get(tag, tag.removeprefix("train_batch/").replace("_", " "))
            _noisy(axes, curves[tag], colour, name)
        axes.set(xlabel="batch", ylabel="loss", xlim=(0, None))
        _limit_to_bulk(axes, [curves[tag].value for tag in present])
        _legend_above(axes)
    return True


def feature_std_chart(curves: Mapping[str, Curve], isotropic: float, path: Path) -> bool:
    """Draw the feature standard deviation beside 1/sqrt(D); False if the run logged none."""
    curve = curves.get("train_batch/feat_std")
    if curve is None:
        return False
    with _figure(path, 7.2, 2.6) as axes:
        _noisy(axes, curve, BLUE, "run")
        axes.axhline(isotropic, color=GREY, linestyle="--", label="1/√D, evenly spread")
        axes.axhline(0, color=RED, linewidth=1, label="0, collapsed")
        axes.set(xlabel="batch", ylabel="standard deviation", xlim=(0, None))
        _legend_above(axes)
    return True


def monitor_chart(curves: Mapping[str, Curve], panels: Sequence[Panel], path: Path) -> bool:
    """Draw the monitors as small multiples; False if the run logged none of them."""
    present = [panel for panel in panels if panel.tag in curves]
    if not present:
        return False
    columns = min(3, len(present))
    rows = -(-len(present) // columns)
    with plt.rc_context(STYLE):
        size = 3.1 * columns, 2.15 * rows
        figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False)
        for axes, panel in zip(grid.flat, present):
            curve = curves[panel.tag]
            marker = "o" if len(curve.step) < 12 else None
            axes.plot(*curve, color=BLUE, marker=marker, markersize=3)
            if panel.reference is not None:
                colour = RED if panel.bad else GREEN
                axes.axhline(panel.reference, color=colour, linestyle="--", linewidth=1.2)
                axes.set_title(panel.name, fontsize=8, color=colour, loc="right")
            axes.set_title(panel.title, fontsize=9.5, color="#3c4048", loc="left")
            axes.tick_params(labelsize=8)
            axes.ticklabel_format(axis="y", useOffset=False)
            axes.locator_params(nbins=4)
            axes.margins(y=0.18)
            if len(set(curve.value.tolist())) == 1 and np.isfinite(curve.value[0]):
                axes.set_ylim(curve.value[0] - 1, curve.value[0] + 1)
        for axes in grid.flat[len(present) :]:
            axes.set_visible(False)
        figure.supxlabel("optimizer step", fontsize=9, color="#3c4048")
        _save(figure, path)
    return True


def epoch_chart(curves: Mapping[str, Curve], names: Mapping[str, str], path: Path) -> bool:
    """Draw scores in percent over the epochs; False if there are no two of any.

    Args:
        curves: scores in percent.
        names: label by tag.
        path: where to.
    """
    present = [tag for tag in names if tag in curves and len(curves[tag].step) > 1]
    if not present:
        return False
    with _figure(path, 7.2, 2.8) as axes:
        for tag, colour in zip(present, COLOURS):
            step, value = curves[tag]
            marker = "o" if len(step) < 40 else None
            look = dict(color=colour, marker=marker, markersize=4, label=names[tag])
            axes.plot(step, value, **look)
        axes.set(xlabel="epoch", ylabel="percent", ylim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(y=0.15)
        _legend_above(axes)
    return True


def schedule_chart(curves: Mapping[str, Curve], path: Path) -> bool:
    """Draw the schedules as small multiples; False if the run logged none."""
    present = [tag for tag in SCHEDULES if tag in curves]
    if not present:
        return False
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(SCHEDULES), figsize=(2.5 * len(SCHEDULES), 1.9))
        for axes in row[len(present) :]:
            axes.set_visible(False)
        for axes, tag in zip(row, present):
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


def _legend_above(axes: plt.Axes) -> None:
    """A legend that hides no curve."""
    axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def _noisy(axes: plt.Axes, curve: Curve, colour: str, name: str) -> None:
    """A noisy curve, pale, with its moving mean; values that are no number leave a gap."""
    step, value = curve
    there = np.isfinite(value)
    axes.plot(step, value, color=colour, alpha=0.18, linewidth=0.8)
    mean = smooth(value[there], _window(value))
    marker = "o" if len(step) < 12 else None
    axes.plot(step[there], mean, color=colour, label=name, marker=marker, markersize=4)


def _window(value: np.ndarray) -> int:
    return max(1, len(value) // 40)


def _limit_to_bulk(axes: plt.Axes, values: list[np.ndarray]) -> None:
    """Cut the top off where a few early steps would flatten all the rest."""
    joined = np.concatenate(values)
    joined = joined[np.isfinite(joined)]
    if len(joined) > 100:
        high, low = np.percentile(joined, 99.5), joined.min()
        axes.set_ylim(max(0, low - 0.05 * (high - low)), high + 0.1 * (high - low))
