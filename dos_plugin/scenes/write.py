"""Write synthetic scans in the host's on-disk layout, in parallel, resumable and cached."""

import json
import multiprocessing
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from zlib import crc32

import numpy as np

from .classes import CLASS_NAMES
from .folders import drop_partial, write_folder
from .sensor import Sensor, generate_scan

VERSION = 3  # raise it with every change of the generator that changes a scan
FILES = ("coord", "strength", "segment", "instance", "boxes")
RECORD = "scenes.json"


def scene_name(index: int) -> str:
    """Folder name of the scene with this index in its split."""
    return f"scene-{index:05d}"


def write_scenes(
    root: str | os.PathLike,
    splits: Mapping[str, int] | None = None,
    seed: int = 0,
    workers: int = 2,
    progress: bool = True,
) -> dict:
    """Generate scans below ``root``; what is there already from the same settings is kept.

    A scene appears as a whole or not at all: its files are written to ``root/.incomplete`` and
    the folder is renamed when it is complete. After an interruption the same call goes on. If the
    scenes there come from other settings (generator version, seed, sensor), they are replaced.

    Args:
        root: folder to write to; made if missing.
        splits: number of scenes of each split, default ``{"train": 160, "val": 40}``. A split
            that holds more scenes from this generator loses the surplus.
        seed: a scene depends on this, its split's name and its index only.
        workers: processes; 1 works in this one.
        progress: show a progress bar.

    Returns:
        The content of ``root/scenes.json``: generator version, seed, sensor, class names, and for
        each split the number of scenes and points and the points of each class.

    Raises:
        ValueError: a bad seed, number or split name, or scenes in ``root`` that are not from this
            generator.
    """
    splits = {"train": 160, "val": 40} if splits is None else dict(splits)
    root = Path(root)
    _check(root, splits, seed, workers)
    settings = {
        "generator": VERSION,
        "seed": int(seed),
        "sensor": asdict(Sensor()),
        "class_names": list(CLASS_NAMES),
    }
    root.mkdir(parents=True, exist_ok=True)
    drop_partial(root)
    known = _read_record(root)
    if known is None:
        foreign = [str(p) for s in splits if (root / s).is_dir() for p in (root / s).iterdir()]
        if foreign:
            raise ValueError(
                f"root: {foreign[0]} was not written by this generator (no {RECORD} in {root}); "
                "name another folder or remove it"
            )
    elif any(known.get(key) != value for key, value in settings.items()):
        for split in {*known.get("splits", {}), *splits}:
            _drop_scenes(root / split, keep=0)
        known = None
    others = {} if known is None else {k: v for k, v in known["splits"].items() if k not in splits}
    # On disk before the first scene, so that an interrupted run's scenes are recognised.
    _write_record(root, settings | {"splits": others | {split: None for split in splits}})

    jobs = []
    for split, count in splits.items():
        (root / split).mkdir(exist_ok=True)
        _drop_scenes(root / split, keep=count)
        for index in range(count):
            if not _complete(root / split / scene_name(index)):
                jobs.append((root, split, index, int(seed)))
    _run(jobs, workers, progress)
    drop_partial(root)
    record = settings | {"splits": others | {s: _count(root / s, n) for s, n in splits.items()}}
    _write_record(root, record)
    return record


def _check(root: Path, splits: dict, seed: int, workers: int) -> None:
    if root.exists() and not root.is_dir():
        raise ValueError(f"root: {root} is not a folder")
    for split, count in splits.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+", split):
            raise ValueError(f"splits: {split!r} is no folder name of letters, digits, - and _")
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"splits: {split} asks for {count!r} scenes, expected 0 or more")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed: {seed!r}, expected an integer of at least 0")
    if not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers: {workers!r}, expected an integer of at least 1")


def write_scene(root: Path, split: str, index: int, seed: int) -> None:
    """Generate one scene and write its folder."""
    scan = generate_scan([seed, crc32(split.encode()), index])
    write_folder(root, split, scene_name(index), {name: scan[name] for name in FILES})


def _run(jobs: list[tuple], workers: int, progress: bool) -> None:
    from tqdm import tqdm

    with tqdm(total=len(jobs), desc="scenes", unit="scan", disable=not (progress and jobs)) as bar:
        if workers == 1 or len(jobs) < 4:
            for job in jobs:
                write_scene(*job)
                bar.update()
            return
        with _one_thread_each():
            # Spawned, because a fork of a process that has loaded torch may hang.
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context)
            try:
                for future in as_completed([pool.submit(write_scene, *job) for job in jobs]):
                    future.result()
                    bar.update()
            finally:
                pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread_each():
    """Child processes read the number of threads from the environment when they start."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: "1" for name in names})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _complete(folder: Path) -> bool:
    return all((folder / f"{name}.npy").is_file() for name in FILES)


def _drop_scenes(split: Path, keep: int) -> None:
    """Remove this generator's scenes with an index of ``keep`` or more."""
    for folder in sorted(split.glob("scene-*")):
        index = re.fullmatch(r"scene-(\d{5,})", folder.name)
        if index and int(index[1]) >= keep:
            shutil.rmtree(folder)


def _count(split: Path, scenes: int) -> dict:
    points = np.zeros(len(CLASS_NAMES) + 1, np.int64)
    for index in range(scenes):
        segment = np.load(split / scene_name(index) / "segment.npy")
        points += np.bincount(segment + 1, minlength=len(points))
    by_class = {name: int(n) for name, n in zip(("ignored", *CLASS_NAMES), points)}
    return {"scenes": scenes, "points": int(points.sum()), "class_points": by_class}


def _read_record(root: Path) -> dict | None:
    try:
        record = json.loads((root / RECORD).read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{root / RECORD}: not valid JSON ({error}); remove it") from None
    if not isinstance(record, dict) or not isinstance(record.get("splits"), dict):
        raise ValueError(f"{root / RECORD}: not written by this generator; name another folder")
    return record


def _write_record(root: Path, record: dict) -> None:
    partial = root / f"{RECORD}.{os.getpid()}"
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(root / RECORD)
