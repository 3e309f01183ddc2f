"""Many scan files into scene folders, in parallel; bad scans are left out and listed."""

import functools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dos_plugin.scenes.folders import drop_partial

from .job import Done, Found, Job, Settings, look, write
from .labels import LabelFiles
from .parallel import count_workers, open_pool, run_all
from .readers import import_libraries
from .scan import longest
from .sources import format_of, scene_names
from .strengths import Strengths, choose_scale, find_groups


@dataclass
class Outcome:
    """What became of the files.

    A scan is named by its file, and by its name there if the file has several.

    Attributes:
        written: scene folders written.
        kept: scene folders that held the same scan already.
        points: points in the folders written.
        dropped: scan -> number of its points with NaN or infinite values, which are left out.
        long: scan -> its extent in metres, where that is more than :func:`~.scan.longest`.
        counts: points that were ``read`` for the folders written and kept, and those among them
            with ``zeros``, ``negative``, ``far`` or ``above``, as of :class:`~.job.Done`.
        scans: number of scans with such points.
        skipped: scan -> why it was left out.
        scale: strengths were divided by this.
        high: 99 % of the strengths of each scan are at most this.
        used: which columns were taken -> number of scans.
        classes: training id -> number of points in the folders written and kept.
        color, strength: whether these were written.
    """

    written: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    points: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    long: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    scans: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    scale: float = 1.0
    high: float = 0.0
    used: Counter[str] = field(default_factory=Counter)
    classes: Counter[int] = field(default_factory=Counter)
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
    the same divisor of strengths; then they are written. A bad scan is left out and listed in the
    outcome. A scene folder appears as a whole or not at all, and is read back.

    Args:
        files: from :func:`~.sources.find_files`.
        settings: what to take and where to write it.
        labels: finds label files; None: there are none.
        workers: processes; None chooses.
        progress: show progress bars.

    Raises:
        ValueError: a bad setting, or strengths of two units.
        OSError: ``out`` cannot be written, or a worker died.
        ModuleNotFoundError: a format needs a library that is not installed.
    """
    _check(settings, workers)
    outcome = Outcome()
    jobs = _make_jobs(files, settings, labels, outcome)
    import_libraries(settings.format or format_of(job.file) for job in jobs)
    settings.out.mkdir(parents=True, exist_ok=True)
    drop_partial(settings.out)
    try:
        with open_pool(count_workers(workers, len(jobs))) as pool:
            find = functools.partial(look, settings)
            found = list(run_all(pool, find, jobs, "read", progress))
            settings = _agree(settings, [f for _, f in found], outcome)
            good = dict.fromkeys(job for job, f in found if f.problem is None)
            put = functools.partial(write, settings)
            for _, done in run_all(pool, put, list(good), "write", progress):
                _count(outcome, done)
    finally:
        drop_partial(settings.out)
    return outcome


def _check(settings: Settings, workers: int | None) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", settings.split):
        raise ValueError(
            f"--split: {settings.split!r} is no folder name of letters, digits, - and _"
        )
    for option, value in {
        "--strength-scale": settings.strength_scale,
        "--max-range": settings.max_range,
        "--tile": settings.tile,
    }.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{option}: {value}, expected a number above 0")
    if settings.overlap and settings.tile is None:
        raise ValueError(f"--overlap: {settings.overlap}, but no --tile")
    if not 0 <= settings.overlap < (settings.tile or math.inf):
        raise ValueError(f"--overlap: {settings.overlap}, expected 0 or more and less than --tile")
    for option, number in {"--workers": workers, "--every": settings.reading.every}.items():
        if number is not None and number < 1:
            raise ValueError(f"{option}: {number}, expected 1 or more")


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
            outcome.skipped[str(file)] = str(error)
    return jobs


def _agree(settings: Settings, found: Sequence[Found], outcome: Outcome) -> Settings:
    """Settings that hold for all good scans."""
    outcome.skipped |= {f.where: f.problem for f in found if f.problem is not None}
    good = [f for f in found if f.problem is None]
    strengths = {f.where: f.strengths for f in good if f.strengths is not None}
    if settings.strength_scale is None:
        _check_units(strengths)
    scale = settings.strength_scale or choose_scale(list(strengths.values()))
    outcome.high = max((s.high for s in strengths.values()), default=0.0)
    outcome.scale, outcome.strength = scale, bool(strengths)
    outcome.color = bool(good) and all(f.color for f in good)
    outcome.used = Counter(f.used for f in good if f.strengths is not None or not strengths)
    outcome.long = {f.where: f.extent for f in good if f.extent > longest()}
    return replace(settings, strength_scale=scale, color=outcome.color, others=len(strengths))


def _check_units(strengths: Mapping[str, Strengths]) -> None:
    """Raises ValueError if scans have strengths of different units."""
    groups = find_groups(strengths)
    if groups is None:
        return
    weak, strong = groups
    raise ValueError(
        f"strengths of two units: {len(weak):,} scans up to {strengths[weak[-1]].high:.3g} (such "
        f"as {weak[-1]}), {len(strong):,} from {strengths[strong[0]].high:.3g} (such as "
        f"{strong[0]}). Ingest them one after the other, or give one --strength-scale for all"
    )


def _count(outcome: Outcome, done: Done) -> None:
    if done.problem is not None or done.folder is None:
        outcome.skipped[done.where] = done.problem or "nothing was written"
        return
    if done.dropped:
        outcome.dropped[done.where] = done.dropped
    for what in ("read", "zeros", "negative", "far", "above"):
        if number := getattr(done, what):
            outcome.counts[what] += number
            outcome.scans[what] += 1
    outcome.classes.update(done.classes)
    if done.kept:
        outcome.kept.append(done.folder)
    else:
        outcome.written.append(done.folder)
        outcome.points += done.points
