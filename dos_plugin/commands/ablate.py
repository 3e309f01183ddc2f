"""The ablation: a row of configs, several seeds each, trained and probed; one table, one figure.

A run is a training by the host's train script and a ``dos-plugin probe`` of its student, both as
users type them, in ``<out>/<row>/seed-<n>``. What it ran with stands in ``job.json`` there: a
finished run is not repeated, an interrupted one goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import shlex
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
from dos_plugin.host import EMBEDDED, active_host
from dos_plugin.probing.scans import ScanSource, class_names, default_splits
from dos_plugin.reports.ablation import (
    RANDOM,
    THIRDS,
    Line,
    format_table,
    make_line,
    write_results,
)
from dos_plugin.runs.run import open_run
from dos_plugin.runs.training import digest, environment, read_notes, train_command, write_notes
from dos_plugin.shipped import configs_dir, describe

# What a run was made with, in its folder.
STATE = "job.json"


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
    def state(self) -> Path:
        """What it ran with, and for how long."""
        return self.folder / STATE

    @property
    def result(self) -> Path:
        """What the probe writes."""
        return self.folder / "result.json"

    def train_command(self, script: Sequence[str]) -> list[str]:
        """The command line of the training, which goes on where there is a checkpoint."""
        options = [f"seed={self.seed}", *self.options]
        config, folder = self.row.path.absolute(), self.folder.absolute()
        return train_command(script, config, folder, options)

    def probe_command(self) -> list[str]:
        """The command line of the probe of the student."""
        runner = [] if embedded() else cpu_runner()
        command = [sys.executable, *runner, "-m", "dos_plugin.cli", "probe", str(self.folder)]
        sources = ["--sources", *self.sources]
        return [*command, "--no-knn", *sources, *self.probe, "--json", str(self.result)]


EXAMPLES = """examples:
  dos-plugin ablate --list
  dos-plugin ablate configs/mine --seeds 0 1 --out exp/dos/mine --probe --train-scans 40"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin ablate``."""
    parser.epilog = EXAMPLES
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
    script = ["-m", "dos_plugin.minihost"] if embedded() else [*cpu_runner(), "tools/train.py"]
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
        meaning = digest(_settings(file))
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
            settings = digest([_settings(row.path), options, probe, seed])
            state = read_notes(folder / STATE)
            if state.get("digest", settings) != settings:
                raise ValueError(
                    f"{folder}: holds a run with other settings (config, --options, --data or "
                    "--probe); give another --out, or remove it"
                )
            sources = ("student", "random") if row is rows[0] else ("student",)
            jobs.append(Job(row, seed, folder, tuple(options), tuple(probe), sources, settings))
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
                miou = _read_result(job)["student"]["miou"]
                seconds = read_notes(job.state)["seconds"]
                print(f"{miou:.1f} mIoU, {seconds:.0f} s of training", flush=True)
        except BaseException:  # Ctrl-C, too: what waits must not begin
            stop.set()
            raise
    return failed


def run_job(job: Job, train: Sequence[str], workers: int, stop: threading.Event) -> Path | None:
    """Train and probe; returns the log of the command that failed, None if all went well."""
    job.folder.mkdir(parents=True, exist_ok=True)
    state: dict[str, Any] = {"digest": job.digest, "trained": False, "seconds": 0.0}
    state |= read_notes(job.state)
    write_notes(job.state, state)
    variables = environment(active_host().name, one_thread=workers > 1)
    if not state["trained"]:
        log = job.folder / "train.out"
        started = time.perf_counter()
        state["trained"] = not stop.is_set() and _call(job.train_command(train), log, variables)
        state["seconds"] += time.perf_counter() - started
        write_notes(job.state, state)
        if not state["trained"]:
            return log
    log = job.folder / "probe.out"
    return None if not stop.is_set() and _call(job.probe_command(), log, variables) else log


def head_common_tail(job: Job) -> dict[str, str]:
    """Third of each class name by its share of the labelled voxels that its probe was trained on.

    Raises:
        FileNotFoundError: if the scans are not there.
    """
    parser = argparse.ArgumentParser()
    add_arguments_of_probe(parser)
    words = job.probe_command()
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


def _settings(path: Path) -> Any:
    """What a config says, without the folder it names."""
    config = active_host().Config.fromfile(str(path))._cfg_dict.to_dict()
    return {key: value for key, value in config.items() if key != "save_path"}


def _call(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> bool:
    """Whether the command left with status 0; it writes into the log."""
    nothing = subprocess.DEVNULL
    with log.open("a") as file:
        file.write(f"$ {shlex.join(words)}\n")
        file.flush()
        done = subprocess.run(words, env=environment, stdout=file, stderr=file, stdin=nothing)
    return done.returncode == 0


def _read_result(job: Job) -> dict[str, Any]:
    """What the probe wrote, by source."""
    return json.loads(job.result.read_text())["probe"]


def summarise(rows: Iterable[Row], jobs: Sequence[Job], thirds: Mapping[str, str]) -> list[Line]:
    """A line per row that has a finished run, random weights first where they were probed."""
    results = {job: _read_result(job) for job in sorted(jobs, key=lambda job: job.seed)}
    table = []
    if first := {job.seed: found["random"] for job, found in results.items() if "random" in found}:
        table.append(make_line(RANDOM, "The backbone before training.", first, thirds, 0.0))
    for row in rows:
        own = {job: found["student"] for job, found in results.items() if job.row is row.source}
        if own:
            seconds = sum(read_notes(job.state).get("seconds", 0.0) for job in own)
            by_seed = {job.seed: entry for job, entry in own.items()}
            table.append(make_line(row.name, row.summary, by_seed, thirds, seconds))
    return table


def embedded() -> bool:
    """Whether the embedded host trains."""
    return active_host().name == EMBEDDED


def cpu_runner() -> list[str]:
    """What stands before a script of the real host on a machine without CUDA."""
    return [] if torch.cuda.is_available() else ["-m", "dos_plugin.cpu"]
