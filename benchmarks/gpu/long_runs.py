"""Longer pretrainings than a CPU has patience for, side by side on a GPU, scored on real places.

    python benchmarks/gpu/long_runs.py pack ~/.cache/dos-plugin/real benchmarks/gpu/pack/real.npz.xz
    python benchmarks/gpu/long_runs.py run --steps 2000 --json long_runs.json

The demo's config, in mixed precision, on the embedded host, all variants at the same time, each in
one process: other numbers of places and sensors to learn from, another width. No scan of
SemanticKITTI's places 02, 05, 07 and 08 is trained on. Frozen features are probed with the scans of
the seven other places and scored on 02, 05 and 07 (ten scans each), by which a recipe may be
chosen, and on 08, by which not.

`pack` keeps a point per 0.15 m cell, rounded to 2 cm, for the whole to travel in 20 MiB: voxels of
the config are 0.2 m.
"""

import argparse
import io
import json
import lzma
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the other benchmarks
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

import common
from dos_plugin.scenes import write_scenes
from recipe import CONFIG, HOOKS, stages

WORK = Path(os.environ.get("DOS_GPU_WORK", "exp/dos-gpu")).absolute()
PACK = common.ROOT / "benchmarks/gpu/pack/real.npz.xz"
CHOOSE, OFFICIAL = ("02", "05", "07"), ("08",)
CELL, UNIT = 0.15, 0.02  # metres
EVERY = 8  # of the scans of KITTI's drives, of which ten are a second
STREETS = 640

# Where to learn, and what is changed of the demo's config.
Variant = tuple[tuple[str, ...], tuple[str, ...]]
DOUBLE = stages(64, 128, 256, 384)
VARIANTS: dict[str, Variant] = {
    "173 real scans": (("kitti", "others"), ()),
    "streets": (("streets",), ()),
    "173 real scans, streets": (("kitti", "others", "streets"), ()),
    "173 real scans, streets, 2 x as wide": (("kitti", "others", "streets"), DOUBLE),
}


def thin(coord: np.ndarray, *more: np.ndarray) -> list[np.ndarray]:
    """A point per cell along a Z curve, where neighbours are near and so compress well."""
    cells = np.floor(coord / CELL).astype(np.int64)
    cells -= cells.min(axis=0)
    code = np.zeros(len(cells), np.int64)
    for bit in range(12):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    order = np.random.default_rng(0).permutation(len(cells))
    _, first = np.unique(code[order], return_index=True)
    kept = order[first]
    return [np.round(coord[kept] / UNIT).astype(np.int16), *(value[kept] for value in more)]


def pack(real: Path, out: Path) -> None:
    """All real scans in one file."""
    from dos_plugin.host import HOST

    kept: dict[str, np.ndarray] = {}

    def keep(name: str, coord: np.ndarray, strength: np.ndarray, segment: np.ndarray) -> None:
        strength = np.clip(np.round(strength.reshape(-1) * 63), 0, 63).astype(np.uint8)
        coord, strength, segment = thin(coord, strength, segment.reshape(-1).astype(np.int8))
        # Differences of neighbours, and bytes of the same weight together.
        steps = np.diff(coord, axis=0, prepend=np.zeros((1, 3), np.int16))
        planes = np.ascontiguousarray(steps.T).view(np.uint8).reshape(3, -1, 2)
        kept[f"{name}:coord"] = np.ascontiguousarray(planes.transpose(0, 2, 1))
        kept[f"{name}:strength"], kept[f"{name}:segment"] = strength, segment

    kitti = HOST.DATASETS.get("SemanticKITTIDataset")(
        split=["train", "val"], data_root=str(real / "semantic_kitti"), transform=None
    )
    for number in range(len(kitti.data_list)):
        scan = kitti.get_data(number)
        keep(f"kitti/{scan['name']}", scan["coord"], scan["strength"], scan["segment"])
    others = [(path, 4, 1.0) for path in sorted((real / "kitti_raw").rglob("*.bin"))[::EVERY]]
    others += [(path, 5, 255.0) for path in sorted((real / "nuscenes").rglob("LIDAR_TOP/*.bin"))]
    for number, (path, columns, unit) in enumerate(others):
        scan = np.fromfile(path, np.float32).reshape(-1, columns)
        unknown = np.full(len(scan), -1)
        keep(f"others/{number:04d}", scan[:, :3], scan[:, 3] / unit, unknown)
    memory = io.BytesIO()
    np.savez(memory, **kept)  # type: ignore[arg-type]
    out.write_bytes(lzma.compress(memory.getvalue(), preset=9))
    print(f"{len(kept) // 3} scans, {out.stat().st_size / 2**20:.1f} MiB: {out}")


def unpack(file: Path) -> None:
    """Scans in the host's layout: ``kitti/<name>``, ``others/<name>``."""
    archive = np.load(io.BytesIO(lzma.decompress(file.read_bytes())))
    for key in archive.files:
        name, kind = key.split(":")
        folder, value = WORK / "scans" / name, archive[key]
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "coord":
            parts = np.ascontiguousarray(value.transpose(0, 2, 1)).view(np.int16)[..., 0]
            value = (np.cumsum(parts, axis=1, dtype=np.int16).T * UNIT).astype(np.float32)
        elif kind == "strength":
            value = (value / np.float32(63))[:, None]
        else:
            value = value.astype(np.int32)
        np.save(folder / f"{kind}.npy", value)


def links(folder: Path, scenes: list[Path]) -> None:
    """A folder of links to scenes."""
    folder.mkdir(parents=True)
    for scene in scenes:
        (folder / scene.name).symlink_to(scene, target_is_directory=True)


def lay_out(sources: set[tuple[str, ...]]) -> None:
    """A data root for every choice of sources, and those of the probes."""
    scans = WORK / "scans"
    unlabelled = {"others": sorted((scans / "others").iterdir())}
    kitti = sorted((scans / "kitti").iterdir())
    held = (*CHOOSE, *OFFICIAL)
    unlabelled["kitti"] = [path for path in kitti if path.name[:2] not in held]
    streets = WORK / "many-streets"
    if any("streets" in names for names in sources):
        workers = len(os.sched_getaffinity(0))
        write_scenes(streets, {"train": STREETS, "val": 1}, workers=workers, progress=False)
        unlabelled["streets"] = sorted((streets / "train").iterdir())
    for names in sources:
        root = WORK / "roots" / "-".join(names)
        links(root / "train", [path for name in names for path in unlabelled[name]])
    for name, places in (("choose", CHOOSE), ("official", OFFICIAL)):
        links(WORK / f"probed/{name}/train", unlabelled["kitti"])
        links(WORK / f"probed/{name}/val", [p for p in kitti if p.name[:2] in places])


def call(words: list[str], log: Path) -> float:
    """Run a module on the embedded host; seconds.

    Raises:
        RuntimeError: If it fails; with the end of its output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    variables = {**os.environ, "DOS_HOST": "minihost", "OMP_NUM_THREADS": "2"}
    with log.open("w") as file:
        done = subprocess.run(
            [sys.executable, "-m", *words], env=variables, stdout=file, stderr=file
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}:\n{log.read_text()[-1500:]}")
    return time.monotonic() - start


def train(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Pretrain and probe a variant."""
    sources, options = VARIANTS[name]
    root = WORK / "roots" / "-".join(sources)
    folder = WORK / "long" / "".join(c if c.isalnum() else "-" for c in name)
    folder.mkdir(parents=True)
    scans = len(list((root / "train").iterdir()))
    epoch = max(1, round(args.steps * args.batch_size / scans))
    ours = folder / "ours.py"
    ours.write_text(f"_base_ = [{str(CONFIG)!r}]\nhooks = {HOOKS!r}\n")
    words = ["dos_plugin.minihost", "--config-file", str(ours), "--options", *options]
    # Data of one eval epoch are read without starting the workers anew.
    words += [f"epoch={epoch}", "eval_epoch=1", f"seed={args.seed}", "enable_amp=True"]
    words += [f"batch_size={args.batch_size}", f"num_worker={args.workers}"]
    words += [f"save_path={folder}", f"data.train.data_root={root}"]
    words += [f"data.train.transform.2.max_size={args.max_size}"]
    seconds = call(words, folder / "train.out")
    steps = epoch * scans // args.batch_size
    row: dict[str, Any] = {"row": name, "scans": scans, "steps": steps, "seconds": seconds}
    for probed in ("choose", "official"):
        out = folder / f"{probed}.json"
        words = ["dos_plugin.cli", "probe", str(folder / "model/model_last.pth"), "--no-knn"]
        words += ["--sources", "student", "random", "--data", str(WORK / "probed" / probed)]
        words += ["--seeds", "2", "--train-scans", "35", "--val-scans", "15", "--json", str(out)]
        call(words, out.with_suffix(".out"))
        found = json.loads(out.read_text())["probe"]
        row |= {f"{probed} {key}": entry["miou"] for key, entry in found.items()}
    print(json.dumps(row), flush=True)
    return row


def run(args: argparse.Namespace) -> None:
    """All variants at once."""
    start = time.monotonic()
    unpack(args.pack)
    lay_out({VARIANTS[name][0] for name in args.rows})
    print(f"scans laid out in {time.monotonic() - start:.0f} s", flush=True)
    rows, failures = [], []
    with ThreadPoolExecutor(len(args.rows)) as pool:
        for future in [pool.submit(train, name, args) for name in args.rows]:
            try:
                rows.append(future.result())
            except RuntimeError as error:
                failures.append(str(error))
            common.write_json(args.json, rows, {"failures": failures})
    if rows:
        common.print_table(rows)
    if failures:
        sys.exit("\n".join(failures))


def main() -> None:
    """Pack or run."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = options.add_subparsers(required=True)
    packing = parts.add_parser("pack", help="real scans into a file")
    packing.add_argument("real", type=Path)
    packing.add_argument("out", type=Path)
    packing.set_defaults(work=lambda args: pack(args.real.expanduser(), args.out))
    running = parts.add_parser("run", help="train and probe")
    add = running.add_argument
    add("--rows", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="ROW")
    add("--steps", type=int, default=2000)
    add("--batch-size", type=int, default=8)
    add("--max-size", type=int, default=8000, help="points of a view; default %(default)s")
    add("--workers", type=int, default=2, help="of a training; default %(default)s")
    add("--seed", type=int, default=0)
    add("--pack", type=Path, default=PACK)
    add("--json", type=Path)
    running.set_defaults(work=run)
    args = options.parse_args()
    args.work(args)


if __name__ == "__main__":
    main()
