"""One scan file: what is in it, and its scene folder. This part runs in worker processes."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dos_plugin.scenes.folders import write_folder

from .labels import as_labels, map_labels, read_labels
from .readers import read_fields
from .scan import Scan, make_scan, pick_label
from .sources import format_of


@dataclass(frozen=True)
class Settings:
    """What to take from the files and where to write it.

    Attributes:
        out: data root.
        split: folder below it.
        format: of all files; None: by suffix.
        strength_field, strength_scale: column and divisor of strengths; None chooses.
        label_field: column of labels, if they are in the scan files.
        label_map: from :func:`~.labels.read_label_map`.
        overwrite: replace scene folders that hold another scan.
        color: whether colours are written.
    """

    out: Path
    split: str = "train"
    format: str | None = None
    strength_field: str | None = None
    strength_scale: float | None = None
    label_field: str | None = None
    label_map: dict[int, int] | None = None
    overwrite: bool = False
    color: bool = True


@dataclass(frozen=True)
class Job:
    """A scan file, the name of its scene and its label file."""

    file: Path
    name: str
    label: Path | None = None


@dataclass
class Found:
    """What a look into a file showed."""

    problem: str | None = None
    largest: float | None = None  # strength
    color: bool = False
    used: str = ""


@dataclass
class Done:
    """What became of one file."""

    problem: str | None = None
    folder: Path | None = None
    kept: bool = False
    points: int = 0
    dropped: int = 0
    classes: dict[int, int] = field(default_factory=dict)


def read_scan(settings: Settings, job: Job) -> tuple[Scan, np.ndarray | None]:
    """A scan and its training ids (N,) int32.

    Raises:
        OSError, ValueError: the file, its labels or values in them are bad.
    """
    fields = read_fields(job.file, settings.format or format_of(job.file))
    label = None
    if job.label is not None:
        label = read_labels(job.label)
    elif settings.label_field is not None:
        label = as_labels(pick_label(fields, settings.label_field))
    scan = make_scan(fields, settings.strength_field, label)
    return scan, None if scan.label is None else map_labels(scan.label, settings.label_map)


def _problem(error: Exception, job: Job) -> str:
    if not isinstance(error, OSError):
        return str(error)
    other = error.filename and Path(error.filename) != job.file  # its label file
    return (f"{error.filename} " if other else "") + f"cannot be read ({error.strerror or error})"


def look(settings: Settings, job: Job) -> Found:
    """Read a file and say what is in it."""
    try:
        scan, _ = read_scan(settings, job)
    except (OSError, ValueError) as error:
        return Found(problem=_problem(error, job))
    largest = None if scan.strength is None else float(scan.strength.max())
    return Found(largest=largest, color=scan.color is not None, used=scan.used)


def write_one(settings: Settings, job: Job) -> Done:
    """Write the scene folder of a file.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        scan, segment = read_scan(settings, job)
    except (OSError, ValueError) as error:
        return Done(problem=_problem(error, job))
    arrays = {"coord": scan.coord}
    if scan.strength is not None:
        arrays["strength"] = scan.strength / np.float32(settings.strength_scale or 1)
    if settings.color and scan.color is not None:
        arrays["color"] = scan.color
    classes: dict[int, int] = {}
    if segment is not None:
        arrays["segment"] = segment
        classes = dict(zip(*(v.tolist() for v in np.unique(segment, return_counts=True))))
    done = Done(points=len(scan.coord), dropped=scan.dropped, classes=classes)
    target = settings.out / settings.split / job.name
    if target.exists() and _same(target, arrays):
        done.kept, done.folder = True, target
    elif target.exists() and not settings.overwrite:
        return Done(
            problem=f"{target} holds another scan; give --overwrite, another --split or "
            "another --out"
        )
    else:
        done.folder = write_folder(settings.out, settings.split, job.name, arrays)
    return done


def _same(folder: Path, arrays: dict[str, np.ndarray]) -> bool:
    try:
        if {path.name for path in folder.iterdir()} != {f"{key}.npy" for key in arrays}:
            return False
        return all(np.array_equal(np.load(folder / f"{k}.npy"), v) for k, v in arrays.items())
    except (OSError, ValueError):
        return False
