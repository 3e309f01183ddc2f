"""Scene folders that appear as a whole or not at all."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

PARTIAL = ".incomplete"  # outside the splits: the host takes every entry of a split for a scene


def write_folder(root: Path, split: str, name: str, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write ``root/split/name/<key>.npy``; what stood there is replaced.

    The files are written to ``root/.incomplete``, read back and compared, and the folder is moved
    into place when all is well.

    Raises:
        OSError: the disk is full, say, or gives back something else than was written.
    """
    partial = root / PARTIAL / f"{os.getpid()}-{split}-{name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for key, array in arrays.items():
            file = partial / f"{key}.npy"
            np.save(file, array)
            if not np.array_equal(np.load(file), array):
                raise OSError(f"{file}: holds something else than was written")
        target = root / split / name
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


def drop_partial(root: Path) -> None:
    """Remove what killed runs left; a run that is still alive keeps its own."""
    for folder in (root / PARTIAL).glob("*"):
        if not _alive(folder.name.split("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)
    try:
        (root / PARTIAL).rmdir()
    except OSError:
        return  # there is none, or it is in use


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True  # somebody else's
    return True
