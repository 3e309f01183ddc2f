"""The ablation: a row of configs, several seeds each, trained and probed; one table, one figure.

A run is a training by the host's train script and a ``dos-plugin probe`` of its student, both as
users type them, in ``<out>/<row>/seed-<n>``. What it ran with stands in ``ablation.json`` there: a
finished run is not repeated, an interrupted one goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dos_plugin.commands.probe import add_arguments as add_arguments_of_probe
from dos_plugin.probing.scans import ScanSource, class_names, default_splits
from dos_plugin.runs.run import active_host, open_run
from dos_plugin.shipped import configs_dir, describe
from dos_plugin.whole_file import write_whole

STATE = "ablation.json"
EMBEDDED = "minihost"
# Classes by their share of the labelled points, the most frequent third first.
THIRDS = ("head", "common", "tail")
RANDOM = "random weights"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        path: config file.
        summary: first paragraph of its docstring.
        same_as: the earlier row whose config says the same, whose runs count for both.
    """

    path: Path
    summary: str
    same_as: Row | None = None

    @property
    def name(self) -> str:
        """File name without ``.py``."""
        return self.path.stem

    @property
    def source(self) -> Row:
        """The row that is trained."""
        return self.same_as or self


@dataclass(frozen=True)
class Job:
    """A training and its probe.

    Attributes:
        row: what is trained.
        seed: of the training.
        folder: of the run.
        options: training options besides folder and seed.
        probe: options of ``dos-plugin probe``.
        sources: what is probed.
        digest: of everything that decides the result.
    """

    row: Row
    seed: int
    folder: Path
    options: tuple[str, ...]
    probe: tuple[str, ...]
    sources: tuple[str, ...]
    digest: str

    @property
    def result(self) -> Path:
        """What the probe writes."""
        return self.folder / "result.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin ablate``."""
    parser.add_argument(
        "configs",
        nargs="*",
        type=Path,
        metavar="CONFIG",
        help="configs, or folders of them, a row each; default: the shipped ablation",
    )
    parser.add_argument("--out", type=Path, default=Path("exp/dos/ablation"), help="folder")
    parser.add_argument("--data", type=Path, help="data root; default: that of the configs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the trainings")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument(
        "--train",
        metavar="COMMAND",
        help="train script and its options ('python tools/train.py --num-gpus 2'); default: that "
        "of the active host",
    )
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change all configs, as with the host's train.py",
    )
    parser.add_argument(
        "--probe",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="OPTION",
        help="the rest of the line goes to dos-plugin probe (--train-scans 40 …)",
    )
    parser.add_argument("--list", action="store_true", help="list what would run, and stop")


def main(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin ablate``."""
    import dos_plugin.register  # noqa: F401

    rows = find_rows(args.configs or [configs_dir() / "ablation"])
    jobs = plan(rows, args)
    waiting = [job for job in jobs if not is_done(job)]
    print(
        f"{len(rows)} rows, {len(jobs)} runs, {len(jobs) - len(waiting)} of them done: {args.out}"
    )
    if args.list:
        for row in rows:
            shared = f"  (runs of {row.same_as.name})" if row.same_as else ""
            print(f"  {row.name:<28} {row.summary}{shared}")
        return 0
    script = ["-m", "dos_plugin.minihost"] if _embedded() else [*_runner(), "tools/train.py"]
    train = shlex.split(args.train) if args.train else [sys.executable, *script]
    failed = work_off(waiting, train, args.jobs)
    done = [job for job in jobs if is_done(job)]
    if done:
        table = summarise(rows, done, head_common_tail(done[0]))
        write_results(table, args.out)
        print(f"\n{format_table(table)}\n\ntable and figure: {args.out}/ablation.md, ablation.png")
    for job, log in failed:
        print(f"failed: {job.row.name}, seed {job.seed}, see {log}", file=sys.stderr)
    return 1 if failed else 0


def find_rows(paths: Sequence[Path]) -> list[Row]:
    """Rows of config files and folders of them, in the order given, folders by name.

    Raises:
        FileNotFoundError: if a path or the configs of a folder are not there.
        ValueError: if two rows would have the same name.
    """
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("[!_]*.py")) if path.is_dir() else [path]
        if not found or not all(file.is_file() for file in found):
            raise FileNotFoundError(f"{path}: no config there, expected a .py file or a folder")
        files += found
    rows: list[Row] = []
    first: dict[str, Row] = {}
    for file in files:
        if any(row.name == file.stem for row in rows):
            raise ValueError(f"{file}: a second config called {file.stem!r}, rename one")
        meaning = _digest(_settings(file))
        row = Row(file, describe(file).summary, first.get(meaning))
        first.setdefault(meaning, row)
        rows.append(row)
    return rows


def plan(rows: Sequence[Row], args: argparse.Namespace) -> list[Job]:
    """The trainings that the rows need: those that say the same are trained once.

    Raises:
        ValueError: if a folder holds a run made with other settings.
    """
    options = list(args.options)
    probe = list(args.probe)
    if args.data:
        options.append(f"data.train.data_root={args.data}")
        if "--data" not in probe:  # others, with labels
            probe += ["--data", str(args.data)]
    jobs = []
    for row in (row for row in rows if row.same_as is None):
        for seed in args.seeds:
            folder = args.out / row.name / f"seed-{seed}"
            digest = _digest([_settings(row.path), options, probe, seed])
            state = _read_state(folder)
            if state.get("digest", digest) != digest:
                raise ValueError(
                    f"{folder}: holds a run with other settings (config, --options, --data or "
                    "--probe); give another --out, or remove it"
                )
            sources = ("dos", "random") if row is rows[0] else ("dos",)
            jobs.append(Job(row, seed, folder, tuple(options), tuple(probe), sources, digest))
    return sorted(jobs, key=lambda job: args.seeds.index(job.seed))  # a whole table early


def is_done(job: Job) -> bool:
    """Whether the run was trained, and all its sources probed."""
    try:
        return set(job.sources) <= set(_read_result(job))
    except (OSError, ValueError, KeyError):
        return False


def work_off(jobs: Sequence[Job], train: Sequence[str], workers: int) -> list[tuple[Job, Path]]:
    """Run jobs, some at a time; returns those that failed, each with the log that says why."""
    failed = []
    stop = threading.Event()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        futures = {pool.submit(run_job, job, train, workers, stop): job for job in jobs}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                job, log = futures[future], future.result()
                print(f"[{number}/{len(jobs)}] {job.row.name}, seed {job.seed}: ", end="")
                if log is not None:
                    print("failed", flush=True)
                    failed.append((job, log))
                    continue
                miou = _read_result(job)["dos"]["miou"]
                seconds = _read_state(job.folder)["seconds"]
                print(f"{miou:.1f} mIoU, {seconds:.0f} s of training", flush=True)
        except BaseException:  # Ctrl-C, too: what waits must not begin
            stop.set()
            raise
    return failed


def run_job(job: Job, train: Sequence[str], workers: int, stop: threading.Event) -> Path | None:
    """Train and probe; returns the log of the command that failed, None if all went well."""
    job.folder.mkdir(parents=True, exist_ok=True)
    state: dict[str, Any] = {"digest": job.digest, "trained": False, "seconds": 0.0}
    state |= _read_state(job.folder)
    _write_state(job.folder, state)
    environment = _environment(workers)
    if not state["trained"]:
        log = job.folder / "train.out"
        started = time.perf_counter()
        state["trained"] = not stop.is_set() and _call(train_command(job, train), log, environment)
        state["seconds"] += time.perf_counter() - started
        _write_state(job.folder, state)
        if not state["trained"]:
            return log
    log = job.folder / "probe.out"
    return None if not stop.is_set() and _call(probe_command(job), log, environment) else log


def train_command(job: Job, train: Sequence[str]) -> list[str]:
    """The command line of a training, which goes on where there is a checkpoint."""
    options = [f"save_path={job.folder.absolute()}", f"seed={job.seed}", *job.options]
    checkpoint = job.folder / "model" / "model_last.pth"
    if checkpoint.is_file():
        options += ["resume=True", f"weight={checkpoint.absolute()}"]
    return [*train, "--config-file", str(job.row.path.absolute()), "--options", *options]


def probe_command(job: Job) -> list[str]:
    """The command line of a probe of the student."""
    command = [sys.executable, *_runner(), "-m", "dos_plugin.cli", "probe", str(job.folder)]
    return [*command, "--no-knn", "--sources", *job.sources, *job.probe, "--json", str(job.result)]


def head_common_tail(job: Job) -> dict[str, str]:
    """Third of each class name by its share of the labelled voxels that its probe was trained on.

    Raises:
        FileNotFoundError: if the scans are not there.
    """
    parser = argparse.ArgumentParser()
    add_arguments_of_probe(parser)
    words = probe_command(job)
    probe = parser.parse_args(words[words.index("probe") + 1 :])
    found = open_run(job.folder)
    names = class_names(found, probe.data)
    split = probe.train_split or default_splits(found, probe.data)[0]
    source = ScanSource(found, probe.data, split, probe.train_scans)
    labels = np.concatenate([scan.segment[scan.segment >= 0].numpy() for scan in source])
    order = np.argsort(-np.bincount(labels, minlength=len(names)), kind="stable")
    thirds = np.array_split(order, len(THIRDS))
    label = {k: names[k] if k < len(names) else f"class {k}" for k in order}
    return {label[k]: third for third, part in zip(THIRDS, thirds) for k in part}


def summarise(
    rows: Iterable[Row], jobs: Sequence[Job], thirds: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A line per row that has a finished run, random weights first where they were probed.

    Returns:
        Dicts of ``name``, ``summary``, ``seeds``, ``miou`` and ``miou_std`` (of the sample of
        training seeds), ``miou_seeds``, the mean IoU of the thirds of the classes, and ``seconds``
        of all trainings.
    """
    jobs = sorted(jobs, key=lambda job: job.seed)
    results = {job: _read_result(job) for job in jobs}
    table = []
    if first := [job for job in jobs if "random" in job.sources]:
        entries = [results[job]["random"] for job in first]
        table.append(_line(RANDOM, "The backbone before training.", first, entries, thirds))
        table[0]["seconds"] = 0.0
    for row in rows:
        own = [job for job in jobs if job.row is row.source]
        if own:
            entries = [results[job]["dos"] for job in own]
            table.append(_line(row.name, row.summary, own, entries, thirds))
    return table


def format_table(table: Sequence[Mapping[str, Any]]) -> str:
    """The table as Markdown."""
    lines = [
        f"| | linear probe, mIoU | seeds | {' | '.join(THIRDS)} | training, s |",
        "| --- " * (4 + len(THIRDS)) + "|",
    ]
    for line in table:
        cells = [
            line["name"],
            f"{line['miou']:.1f} ± {line['miou_std']:.1f}",
            ", ".join(f"{value:.1f}" for value in line["miou_seeds"]),
            *(_number(line[third]) for third in THIRDS),
            f"{line['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_results(table: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write ``ablation.md``, ``ablation.json`` and, with matplotlib, ``ablation.png``."""
    note = "Mean and standard deviation over the training seeds, linear probe of frozen features."
    lines = [note, "", format_table(table), ""]
    lines += [f"- {line['name']}: {line['summary']}" for line in table]
    (out / "ablation.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / STATE).write_text(json.dumps(list(table), indent=1) + "\n")
    try:
        _draw(table, out / "ablation.png")
    except ModuleNotFoundError as error:
        print(f"no figure: {error.name} is not installed", file=sys.stderr)


def _draw(table: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel per group of rows (the first word of their names), of mIoU and of its rarest third: a
    dot per seed, mean and standard deviation, a dashed line at random weights."""
    from matplotlib import pyplot as plt

    from dos_plugin.drawing.charts import BLUE, GREY, STYLE

    groups: dict[str, list[Mapping[str, Any]]] = {}
    for line in table:
        if line["name"] != RANDOM:
            groups.setdefault(line["name"].split("-")[0], []).append(line)
    columns = {"miou_seeds": "linear probe, mIoU"}
    if all(line["tail_seeds"] for line in table):
        columns["tail_seeds"] = "its rarest third of the classes"
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
            for key, axes in zip(columns, row):
                for place, line in enumerate(group):
                    seeds = line[key]
                    axes.plot(seeds, [place] * len(seeds), "o", color=BLUE, alpha=0.35, ms=5)
                    spread = statistics.stdev(seeds) if len(seeds) > 1 else 0.0
                    style = dict(xerr=spread, fmt="|", color=BLUE, ms=14, mew=2.5)
                    axes.errorbar(statistics.mean(seeds), place, **style)
                for line in table:
                    if line["name"] == RANDOM:
                        mean = statistics.mean(line[key])
                        axes.axvline(mean, color=GREY, linestyle="--", zorder=4)
                axes.grid(visible=False, axis="y")
            labels = [line["name"].removeprefix(f"{name}-") for line in group]
            row[0].set_yticks(range(len(group)), labels)
            row[0].set_ylim(len(group) - 0.5, -0.5)
            row[0].set_title(name, loc="left", fontsize=10)
        for axes, label in zip(panels[-1], columns.values()):
            axes.set_xlabel(label)
        figure.supxlabel("seeds, mean, standard deviation; dashed: random weights", fontsize=9)
        figure.savefig(path)
        plt.close(figure)


def _line(
    name: str,
    summary: str,
    jobs: Sequence[Job],
    entries: Sequence[Mapping[str, Any]],
    thirds: Mapping[str, str],
) -> dict[str, Any]:
    miou = [entry["miou"] for entry in entries]
    line: dict[str, Any] = dict(name=name, summary=summary, seeds=[job.seed for job in jobs])
    spread = statistics.stdev(miou) if len(miou) > 1 else 0.0
    line |= dict(miou=statistics.mean(miou), miou_std=spread, miou_seeds=miou)
    for third in THIRDS:
        seeds = [
            [
                iou
                for label, iou in entry["iou"].items()
                if iou is not None and thirds.get(label, THIRDS[-1]) == third
            ]
            for entry in entries
        ]
        means = [statistics.mean(values) for values in seeds if values]
        line[third] = statistics.mean(means) if means else None
        line[f"{third}_seeds"] = means
    line["seconds"] = sum(_read_state(job.folder).get("seconds", 0.0) for job in jobs)
    return line


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _settings(path: Path) -> Any:
    """What a config says, without the folder it names."""
    config = active_host().Config.fromfile(str(path))._cfg_dict.to_dict()
    return {key: value for key, value in config.items() if key != "save_path"}


def _embedded() -> bool:
    return active_host().name == EMBEDDED


def _runner() -> list[str]:
    """What stands before a script of the real host on a machine without CUDA."""
    return [] if _embedded() or torch.cuda.is_available() else ["-m", "dos_plugin.cpu"]


def _call(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> bool:
    """Whether the command left with status 0; it writes into the log."""
    nothing = subprocess.DEVNULL
    with log.open("a") as file:
        file.write(f"$ {shlex.join(words)}\n")
        file.flush()
        done = subprocess.run(words, env=environment, stdout=file, stderr=file, stdin=nothing)
    return done.returncode == 0


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()


def _read_result(job: Job) -> dict[str, Any]:
    """What the probe wrote, by source."""
    return json.loads(job.result.read_text())["probe"]


def _read_state(folder: Path) -> dict[str, Any]:
    path = folder / STATE
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is no JSON ({error}), remove {folder}") from error


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    write_whole(folder / STATE, lambda file: file.write_text(json.dumps(state) + "\n"))


def _environment(workers: int) -> dict[str, str]:
    """Trainings beside each other share the cores best with one thread each."""
    one = {"OMP_NUM_THREADS": "1"} if workers > 1 else {}
    return {**one, **os.environ, "DOS_HOST": active_host().name}
