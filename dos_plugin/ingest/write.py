"""Many scan files into scene folders, in parallel; bad files are left out and listed."""

import functools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dos_plugin.scenes.folders import drop_partial

from .job import Done, Found, Job, Settings, look, write_one
from .labels import LabelFiles
from .parallel import count_workers, open_pool, run_all
from .readers import import_libraries
from .sources import format_of, scene_names


@dataclass
class Outcome:
    """What became of the files.

    Attributes:
        written: scene folders written.
        kept: scene folders that held the same scan already.
        points: points in the folders written.
        dropped: file -> number of its points with NaN or infinite values, which are left out.
        skipped: file -> why it was left out.
        scale: strengths were divided by this.
        used: which columns were taken -> number of files.
        classes: training id -> number of points in the folders written and kept.
        color, strength: whether these were written.
    """

    written: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    points: int = 0
    dropped: dict[Path, int] = field(default_factory=dict)
    skipped: dict[Path, str] = field(default_factory=dict)
    scale: float = 1.0
    used: Counter = field(default_factory=Counter)
    classes: Counter = field(default_factory=Counter)
    strength: bool = True
    color: bool = True


def ingest(
    files: Sequence[Path],
    settings: Settings,
    labels: LabelFiles | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Outcome:
    """Write ``out/split/<name>/`` with ``coord.npy`` (N, 3) float32, and where the files have them
    ``strength.npy`` (N, 1) float32, ``color.npy`` (N, 3) uint8 and ``segment.npy`` (N,) int32.

    All files are read once to see what they hold, since all scenes must have the same arrays and
    the same divisor of strengths; then they are written. A bad file is left out and listed in the
    outcome. A scene folder appears as a whole or not at all, and is read back.

    Args:
        files: from :func:`~.sources.find_files`.
        settings: what to take and where to write it.
        labels: finds label files; None: there are none.
        workers: processes; None chooses.
        progress: show progress bars.

    Raises:
        ValueError: a bad setting.
        OSError: ``out`` cannot be written, or a worker died.
        ModuleNotFoundError: a format needs a library that is not installed.
    """
    _check(settings, workers)
    outcome = Outcome()
    jobs = _make_jobs(files, settings, labels, outcome)
    import_libraries(settings.format or format_of(job.file) for job in jobs)
    settings.out.mkdir(parents=True, exist_ok=True)
    drop_partial(settings.out)
    with open_pool(count_workers(workers, len(jobs))) as pool:
        found = dict(run_all(pool, functools.partial(look, settings), jobs, "read", progress))
        settings, jobs = _agree(settings, found, outcome)
        write = functools.partial(write_one, settings)
        for job, done in run_all(pool, write, jobs, "write", progress):
            _count(outcome, job, done)
    drop_partial(settings.out)
    return outcome


def _check(settings: Settings, workers: int | None) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", settings.split):
        raise ValueError(
            f"--split: {settings.split!r} is no folder name of letters, digits, - and _"
        )
    if settings.strength_scale is not None and not 0 < settings.strength_scale < math.inf:
        raise ValueError(f"--strength-scale: {settings.strength_scale}, expected a number above 0")
    if workers is not None and workers < 1:
        raise ValueError(f"--workers: {workers}, expected 1 or more")


def _make_jobs(
    files: Sequence[Path], settings: Settings, labels: LabelFiles | None, outcome: Outcome
) -> list[Job]:
    """Files with their names and labels; the others go to ``outcome.skipped``."""
    jobs = []
    for file, name in zip(files, scene_names(files)):
        try:
            if settings.format is None:
                format_of(file)
            jobs.append(Job(file, name, labels.find(file) if labels else None))
        except ValueError as error:
            outcome.skipped[file] = str(error)
    return jobs


def _agree(
    settings: Settings, found: dict[Job, Found], outcome: Outcome
) -> tuple[Settings, list[Job]]:
    """Settings that hold for all good files, and these files."""
    outcome.skipped |= {job.file: f.problem for job, f in found.items() if f.problem is not None}
    good = {job: f for job, f in found.items() if f.problem is None}
    strengths = [f.largest for f in good.values() if f.largest is not None]
    if strengths:
        for job in [job for job, f in good.items() if f.largest is None]:
            del good[job]
            outcome.skipped[job.file] = (
                f"no strength, but {len(strengths):,} others have one "
                "(--strength-field none leaves it out of all)"
            )
    scale = settings.strength_scale or choose_scale(max(strengths, default=0.0))
    outcome.scale, outcome.strength = scale, bool(strengths)
    outcome.color = bool(good) and all(f.color for f in good.values())
    outcome.used = Counter(f.used for f in good.values())
    return replace(settings, strength_scale=scale, color=outcome.color), list(good)


def choose_scale(largest: float) -> float:
    """Divisor that brings strengths up to ``largest`` into [0, 1]: 1, 255, 65535 or ``largest``.

    One divisor for all files, because the same surface must give the same strength in each.
    """
    return next((scale for scale in (1.0, 255.0, 65535.0) if largest <= scale), largest)


def _count(outcome: Outcome, job: Job, done: Done) -> None:
    if done.problem is not None or done.folder is None:
        outcome.skipped[job.file] = done.problem or "nothing was written"
        return
    if done.dropped:
        outcome.dropped[job.file] = done.dropped
    outcome.classes.update(done.classes)
    if done.kept:
        outcome.kept.append(done.folder)
    else:
        outcome.written.append(done.folder)
        outcome.points += done.points
