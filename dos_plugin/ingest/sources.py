"""The scan files that a user means, their formats and the names of their scenes."""

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .readers import FORMATS

__all__ = ["FORMATS", "find_files", "format_of", "scene_names", "stem_of", "suffix_of"]

SUFFIXES = {suffix: name for name, form in FORMATS.items() for suffix in form.suffixes}
RECORDING = "metadata.yaml"  # in a folder of ROS 2, which is one recording
# Files beside scans that have their suffixes: labels of nuScenes, tables of Argoverse 2.
NO_SCANS = (
    *("_lidarseg.bin", "_panoptic.npz", "annotations.feather", "intrinsics.feather"),
    *("city_SE3_egovehicle.feather", "egovehicle_SE3_sensor.feather"),
)


def suffix_of(file: Path) -> str:
    """The suffix that tells the format (``.pcd.bin`` is one), or a file's last one."""
    name = file.name.lower()
    known = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
    return known or ("" if file.is_dir() else file.suffix.lower())


def is_recording(folder: Path) -> bool:
    """Whether a folder is a recording of ROS 2."""
    return (folder / RECORDING).is_file()


def format_of(file: Path) -> str:
    """Format of a scan file by its suffix.

    Raises:
        ValueError: the suffix is none of those known.
    """
    suffix = suffix_of(file)
    if file.is_dir() and is_recording(file):
        return "ros"
    if suffix not in SUFFIXES:
        raise ValueError(
            f"suffix {suffix!r} is none of {', '.join(SUFFIXES)}: name the format with --format"
        )
    return SUFFIXES[suffix]


def stem_of(file: Path) -> str:
    """Name of a file without the suffix of :func:`suffix_of`."""
    return file.name[: len(file.name) - len(suffix_of(file))]


def find_files(
    inputs: Sequence[str], others: Counter[str] | None = None
) -> tuple[list[Path], dict[Path, str]]:
    """Files named by paths, folders (searched for known suffixes) and glob patterns, each once.

    Args:
        inputs: of any of these kinds.
        others: here the files in the folders that are no scans are counted by suffix.

    Returns:
        the files, and for each input that names nothing, why. A folder of ROS 2 is a file, too.
    """
    found: dict[str, Path] = {}
    missing: dict[Path, str] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            files = _search(path, Counter() if others is None else others)
        elif path.exists():
            files = [path]
        else:
            named = [Path(name) for name in sorted(glob.glob(text, recursive=True))]
            files = [path for path in named if path.is_file() or is_recording(path)]
        if not files:
            known = ", ".join(SUFFIXES)
            missing[path] = f"no {known} in this folder" if path.is_dir() else "no such file"
        for file in files:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values()), missing


def _search(root: Path, others: Counter[str]) -> list[Path]:
    """Scan files of a folder and of those below it."""
    files: list[Path] = []
    for place, folders, names in os.walk(root):
        folders.sort()
        if is_recording(Path(place)):
            files.append(Path(place))
            folders.clear()
            continue
        for name in sorted([*names, *(f for f in folders if f.lower().endswith(tuple(SUFFIXES)))]):
            if name.startswith("."):  # such as ._000000.bin, which macOS adds in copies
                others["hidden"] += 1
                continue
            path = Path(place, name)
            beside = next((end for end in NO_SCANS if name.endswith(end)), None)
            if beside is None and suffix_of(path) in SUFFIXES:
                files += [] if is_recording(path) else [path]
            else:
                others[beside or path.suffix.lower() or "no suffix"] += 1
    return files


def scene_names(files: Sequence[Path]) -> list[str]:
    """A folder name for each file: its stem, with as many parent folders as make all differ.

    The stem keeps the suffix where two files of a folder differ in nothing else.
    """
    places = [file.resolve().parent for file in files]
    twins = Counter((place, stem_of(file)) for place, file in zip(places, files))
    parts = []
    for place, file in zip(places, files):
        stem = stem_of(file)
        if twins[place, stem] > 1:
            stem += suffix_of(file).replace(".", "-")
        parts.append((*place.parts[1:], stem))
    depth = 1
    while True:
        names = ["-".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names) or depth >= max(map(len, parts), default=1):
            break
        depth += 1
    names = [re.sub(r"[^\w.-]", "_", name).lstrip(".") or "scan" for name in names]
    if len(set(names)) < len(names):  # such as "a b" and "a_b"
        names = [f"{name}-{number}" for number, name in enumerate(names)]
    return names
