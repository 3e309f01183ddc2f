"""One file: the scans in it, and their scene folders. This part runs in worker processes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dos_plugin.scenes.folders import write_folder

from .fields import Fields, find, pick
from .labels import as_labels, map_labels, read_labels
from .readers import Reading, read_scans
from .scan import Scan, extent_of, make_scan
from .sources import format_of
from .strengths import Strengths, measure
from .tiles import cut

LABEL = "(label)"  # column of labels that are not the file's own


@dataclass(frozen=True)
class Settings:
    """What to take from the files and where to write it.

    Attributes:
        out: data root.
        split: folder below it.
        format: of all files; None: by suffix.
        reading: what the files do not say themselves.
        strength_field, strength_scale: column and divisor of strengths; None chooses.
        others: number of scans with a strength; if there are any, those without are left out.
        label_field: column of labels, if they are in the scan files.
        label_map: from :func:`~.labels.read_label_map`.
        overwrite: replace scene folders that hold another scan.
        color: whether colours are written.
        keep_zeros, negative, max_range: as of :func:`~.scan.make_scan`.
        tile, overlap: edge and overlap of the tiles of a map, metres; no tile: it stays whole.
    """

    out: Path
    split: str = "train"
    format: str | None = None
    reading: Reading = field(default_factory=Reading)
    strength_field: str | None = None
    strength_scale: float | None = None
    others: int = 0
    label_field: str | None = None
    label_map: dict[int, int] | None = None
    overwrite: bool = False
    color: bool = True
    keep_zeros: bool = False
    negative: str = "zero"
    max_range: float | None = None
    tile: float | None = None
    overlap: float = 0.0


@dataclass(frozen=True)
class Job:
    """A scan file, the name of its scene or the start of their names, and its label file."""

    file: Path
    name: str
    label: Path | None = None


@dataclass
class Found:
    """What a look at a scan showed; ``where`` is its file, and its name there if it has one."""

    where: str
    problem: str | None = None
    strengths: Strengths | None = None
    color: bool = False
    used: str = ""
    extent: float = 0.0  # metres


@dataclass
class Done:
    """What became of a scan."""

    where: str
    problem: str | None = None
    folder: Path | None = None
    kept: bool = False
    points: int = 0
    dropped: int = 0
    zeros: int = 0
    negative: int = 0
    far: int = 0
    read: int = 0
    above: int = 0  # strengths above the divisor
    classes: dict[int, int] = field(default_factory=dict)


@dataclass
class Read:
    """A scan of a file with its training ids (N,) int32, or what is wrong with it."""

    where: str
    name: str
    scan: Scan | None = None
    segment: np.ndarray | None = None
    problem: str | None = None


def read_job(settings: Settings, job: Job) -> Iterator[Read]:
    """The scans of a file; what cannot be read comes with the reason."""
    try:
        for part, fields in _parts(settings, job):
            read = Read(f"{job.file} [{part}]" if part else str(job.file), job.name)
            read.name += f"-{part}" if part else ""
            try:
                read.scan, read.segment = _make(settings, fields)
            except ValueError as error:
                read.problem = str(error)
            yield read
    except (OSError, ValueError) as error:
        yield Read(str(job.file), job.name, problem=_problem(error, job))


def _parts(settings: Settings, job: Job) -> Iterator[tuple[str, Fields]]:
    """Scans of a file or tiles of them, with their labels."""
    scans = read_scans(job.file, settings.format or format_of(job.file), settings.reading)
    for name, fields in scans:
        count = len(next(iter(fields.values()), ()))
        if job.label is not None:
            label = read_labels(job.label)
            if label.size != count:
                raise ValueError(f"{label.size:,} labels for {count:,} points: {job.label}")
            fields = {**fields, LABEL: label.reshape(-1)}  # of an organised cloud they are (H, W)
        if settings.tile is None or not count:
            yield name, fields
            continue
        for tile, part in cut(fields, settings.tile, settings.overlap):
            yield "-".join(filter(None, (name, tile))), part


def _make(settings: Settings, fields: Fields) -> tuple[Scan, np.ndarray | None]:
    if not len(next(iter(fields.values()), ())):
        raise ValueError("no point")
    label = fields.pop(LABEL, None)
    if settings.label_field is not None:
        label = pick(fields, settings.label_field)
        used = None if settings.strength_field is None else find(fields, settings.strength_field)
        column = find(fields, settings.label_field)
        fields = {n: values for n, values in fields.items() if n != column or n == used}
    scan = make_scan(
        fields,
        settings.strength_field,
        label,
        keep_zeros=settings.keep_zeros,
        negative=settings.negative,
        max_range=settings.max_range,
    )
    if scan.strength is None and settings.others:
        raise ValueError(
            f"no strength, but {settings.others:,} others have one "
            "(--strength-field none leaves it out of all)"
        )
    if scan.label is None:
        return scan, None
    return scan, map_labels(as_labels(scan.label), settings.label_map)


def _problem(error: Exception, job: Job) -> str:
    if not isinstance(error, OSError):
        return str(error)
    other = error.filename and Path(error.filename) != job.file  # its label file
    return (f"{error.filename} " if other else "") + f"cannot be read ({error.strerror or error})"


def look(settings: Settings, job: Job) -> Iterator[Found]:
    """Read a file and say what is in it."""
    for read in read_job(settings, job):
        scan = read.scan
        if scan is None:
            yield Found(read.where, problem=read.problem)
            continue
        strengths = None if scan.strength is None else measure(scan.strength)
        yield Found(
            read.where, None, strengths, scan.color is not None, scan.used, extent_of(scan.coord)
        )


def write(settings: Settings, job: Job) -> Iterator[Done]:
    """Write the scene folders of a file.

    Raises:
        OSError: a folder cannot be written.
    """
    for read in read_job(settings, job):
        if read.scan is None:
            yield Done(read.where, problem=read.problem)
        else:
            yield _write(settings, read, read.scan)


def _write(settings: Settings, read: Read, scan: Scan) -> Done:
    done = Done(
        read.where,
        points=len(scan.coord),
        dropped=scan.dropped,
        zeros=scan.zeros,
        negative=scan.negative,
        far=scan.far,
        read=scan.read,
    )
    arrays = {"coord": scan.coord}
    if scan.strength is not None:
        scaled = scan.strength / np.float32(settings.strength_scale or 1)
        done.above = int((scaled > 1).sum())
        arrays["strength"] = np.minimum(scaled, 1)
    if settings.color and scan.color is not None:
        arrays["color"] = scan.color
    if read.segment is not None:
        arrays["segment"] = read.segment
        counts = np.unique(read.segment, return_counts=True)
        done.classes = dict(zip(*(values.tolist() for values in counts)))
    target = settings.out / settings.split / read.name
    if target.exists() and _same(target, arrays):
        done.kept, done.folder = True, target
    elif target.exists() and not settings.overwrite:
        return Done(
            read.where,
            problem=f"{target} holds another scan; give --overwrite, another --split or "
            "another --out",
        )
    else:
        done.folder = write_folder(settings.out, settings.split, read.name, arrays)
    return done


def _same(folder: Path, arrays: dict[str, np.ndarray]) -> bool:
    try:
        if {path.name for path in folder.iterdir()} != {f"{key}.npy" for key in arrays}:
            return False
        return all(np.array_equal(np.load(folder / f"{k}.npy"), v) for k, v in arrays.items())
    except (OSError, ValueError):
        return False
