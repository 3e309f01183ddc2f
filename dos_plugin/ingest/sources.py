"""The scan files that a user means, their formats and the names of their scenes."""

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = {".pcd.bin": "nuscenes", ".bin": "kitti", ".npy": "npy", ".pcd": "pcd", ".ply": "ply"}
FORMATS = tuple(sorted(SUFFIXES.values()))


def suffix_of(file: Path) -> str:
    """The suffix that tells the format (``.pcd.bin`` is one), or the file's last one."""
    name = file.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), file.suffix.lower())


def format_of(file: Path) -> str:
    """Format of a scan file by its suffix.

    Raises:
        ValueError: the suffix is none of those known.
    """
    suffix = suffix_of(file)
    if suffix not in SUFFIXES:
        raise ValueError(
            f"suffix {suffix!r} is none of {', '.join(SUFFIXES)}: name the format with --format"
        )
    return SUFFIXES[suffix]


def stem_of(file: Path) -> str:
    """Name of a file without the suffix of :func:`suffix_of`."""
    return file.name[: len(file.name) - len(suffix_of(file))]


def find_files(inputs: Sequence[str]) -> tuple[list[Path], dict[Path, str]]:
    """Files named by paths, folders (searched for known suffixes) and glob patterns, each once.

    Returns:
        the files, and for each input that names nothing, why.
    """
    found: dict[str, Path] = {}
    missing: dict[Path, str] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if suffix_of(file) in SUFFIXES)
        elif path.exists():
            files = [path]
        else:
            files = [Path(p) for p in sorted(glob.glob(text, recursive=True)) if Path(p).is_file()]
        if not files:
            known = ", ".join(SUFFIXES)
            missing[path] = f"no {known} in this folder" if path.is_dir() else "no such file"
        for file in files:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values()), missing


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
    names = [re.sub(r"[^\w.-]", "_", name).lstrip(".") for name in names]
    if len(set(names)) < len(names):  # such as "a b" and "a_b"
        names = [f"{name}-{number}" for number, name in enumerate(names)]
    return names
