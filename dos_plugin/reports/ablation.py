"""The table and the figure of an ablation: scores of rows of configs over training seeds."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Classes by their share of the labelled points, the most frequent third first.
THIRDS = ("head", "common", "tail")
RANDOM = "random weights"


class Scores(list[float]):
    """A score of every training seed, percent."""

    @property
    def mean(self) -> float | None:
        """None without a seed."""
        return statistics.mean(self) if self else None

    @property
    def std(self) -> float:
        """Standard deviation of the sample, 0 of fewer than two."""
        return statistics.stdev(self) if len(self) > 1 else 0.0


@dataclass
class Line:
    """A row of the table.

    Attributes:
        name: of the config.
        summary: what it is.
        seeds: of the trainings.
        miou: linear probe.
        thirds: mean IoU of each third of the classes; empty where its classes have no label.
        seconds: of all trainings together.
    """

    name: str
    summary: str
    seeds: list[int]
    miou: Scores
    thirds: dict[str, Scores]
    seconds: float

    def plain(self) -> dict[str, Any]:
        """The fields for JSON, with means and deviations."""
        line = dict(name=self.name, summary=self.summary, seeds=self.seeds, seconds=self.seconds)
        line |= dict(miou=self.miou.mean, miou_std=self.miou.std, miou_seeds=list(self.miou))
        for third, scores in self.thirds.items():
            line |= {third: scores.mean, f"{third}_seeds": list(scores)}
        return line


def make_line(
    name: str,
    summary: str,
    results: Mapping[int, Mapping[str, Any]],
    thirds: Mapping[str, str],
    seconds: float,
) -> Line:
    """A line of the results of a row.

    Args:
        name: of the config.
        summary: what it is.
        results: by seed an entry of :func:`dos_plugin.probing.compare.probe_run`.
        thirds: third of each class name; others count as the last one.
        seconds: of all trainings.
    """
    parts: dict[str, Scores] = {third: Scores() for third in THIRDS}
    for entry in results.values():
        found: dict[str, list[float]] = {}
        for label, iou in entry["iou"].items():
            if iou is not None:
                found.setdefault(thirds.get(label, THIRDS[-1]), []).append(iou)
        for third, values in found.items():
            parts[third].append(statistics.mean(values))
    miou = Scores(entry["miou"] for entry in results.values())
    return Line(name, summary, list(results), miou, parts, seconds)


def format_table(table: Sequence[Line]) -> str:
    """The table as Markdown."""
    lines = [
        f"| | linear probe, mIoU | seeds | {' | '.join(THIRDS)} | training, s |",
        "| --- " * (4 + len(THIRDS)) + "|",
    ]
    for line in table:
        cells = [
            line.name,
            f"{line.miou.mean:.1f} ± {line.miou.std:.1f}",
            ", ".join(f"{value:.1f}" for value in line.miou),
            *("-" if part.mean is None else f"{part.mean:.1f}" for part in line.thirds.values()),
            f"{line.seconds:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_results(table: Sequence[Line], out: Path) -> None:
    """Write ``ablation.md``, ``ablation.json`` and, with matplotlib, ``ablation.png``."""
    note = "Mean and standard deviation over the training seeds, linear probe of frozen features."
    lines = [note, "", format_table(table), ""]
    lines += [f"- {line.name}: {line.summary}" for line in table]
    (out / "ablation.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plain = [line.plain() for line in table]
    (out / "ablation.json").write_text(json.dumps(plain, indent=1) + "\n")
    try:
        draw(table, out / "ablation.png")
    except ModuleNotFoundError as error:
        print(f"no figure: {error.name} is not installed", file=sys.stderr)


def draw(table: Sequence[Line], path: Path) -> None:
    """A panel per group of rows (the first word of their names), of mIoU and of its rarest third: a
    dot per seed, mean and standard deviation, a dashed line at random weights."""
    from matplotlib import pyplot as plt

    from dos_plugin.drawing.charts import BLUE, GREY, STYLE

    groups: dict[str, list[Line]] = {}
    for line in table:
        if line.name != RANDOM:
            groups.setdefault(line.name.split("-")[0], []).append(line)
    columns = {"linear probe, mIoU": {line.name: line.miou for line in table}}
    if all(line.thirds[THIRDS[-1]] for line in table):
        rarest = {line.name: line.thirds[THIRDS[-1]] for line in table}
        columns["its rarest third of the classes"] = rarest
    with plt.rc_context(STYLE):
        heights = [len(group) for group in groups.values()]
        figure, panels = plt.subplots(
            len(groups),
            len(columns),
            figsize=(4.4 * len(columns) + 1, 0.36 * sum(heights) + 0.5 * len(groups) + 0.9),
            squeeze=False,
            sharex="col",
            sharey="row",
            gridspec_kw=dict(height_ratios=heights),
            layout="constrained",
        )
        for (name, group), row in zip(groups.items(), panels):
            for scores, axes in zip(columns.values(), row):
                for place, line in enumerate(group):
                    seeds = scores[line.name]
                    axes.plot(seeds, [place] * len(seeds), "o", color=BLUE, alpha=0.35, ms=5)
                    style = dict(xerr=seeds.std, fmt="|", color=BLUE, ms=14, mew=2.5)
                    axes.errorbar(seeds.mean, place, **style)
                if RANDOM in scores:
                    axes.axvline(scores[RANDOM].mean, color=GREY, linestyle="--", zorder=4)
                axes.grid(visible=False, axis="y")
            labels = [line.name.removeprefix(f"{name}-") for line in group]
            row[0].set_yticks(range(len(group)), labels)
            row[0].set_ylim(len(group) - 0.5, -0.5)
            row[0].set_title(name, loc="left", fontsize=10)
        for axes, label in zip(panels[-1], columns):
            axes.set_xlabel(label)
        figure.supxlabel("seeds, mean, standard deviation; dashed: random weights", fontsize=9)
        figure.savefig(path)
        plt.close(figure)
