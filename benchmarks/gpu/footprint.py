"""Memory and time of a step of the shipped pretraining configs, and which kernels take it.

    python benchmarks/gpu/footprint.py memory
    python benchmarks/gpu/footprint.py profile

A step is that of one process with its share of the config's batch, in the config's mixed precision,
on the embedded host, with plain attention in patches of 128. Scenes are synthetic: a LiDAR scan, or
a room, with about the points that the headers of the configs count on. Peak memory is all that
torch has allocated, model and optimizer included; buckets of DistributedDataParallel are not.
"""

import argparse
import os
import re
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the other benchmarks
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the tests
os.environ["DOS_HOST"] = "minihost"

import numpy as np
import torch
from torch import nn

import common
from dos_plugin.commands.doctor.step import collate
from dos_plugin.scenes.sensor import Sensor, generate_scan
from dos_plugin.shipped import config_path, list_configs

PATCH = 128
COLUMNS = {"NuScenesDataset": 1080, "SemanticKITTIDataset": 2300, "WaymoDataset": 2300}
ROOM = 150_000  # points, of which voxels keep about half
PROFILED = "pretrain-dos-v1m1-0-nuscenes"
TOP = 10


def pretrainings() -> list[str]:
    """Names of the configs, the demo's left out."""
    names = [config.name for config in list_configs()]
    return [n for n in names if n.startswith("pretrain-") and not n.endswith("-demo")]


def load(name: str, dry: bool) -> Any:
    """The config with plain attention; narrow and with few points in a dry run."""
    import dos_plugin.register  # noqa: F401
    from dos_plugin.host import HOST

    config = HOST.Config.fromfile(str(config_path(name)))
    options: dict[str, Any] = {}
    if config.model.backbone.type.startswith("PT-"):
        stages = len(config.model.backbone.enc_depths)
        options["model.backbone.enable_flash"] = False
        options["model.backbone.enc_patch_size"] = (PATCH,) * stages
    if dry:
        from tests.contract.test_configs import small_backbone

        options |= small_backbone(config)
    config.merge_from_dict(options)
    return config


def train_sets(config: Any) -> list[Any]:
    """The data sets of a config."""
    train = config.data.train
    return list(train.datasets) if train.type == "ConcatDataset" else [train]


def scenes_a_process(name: str, config: Any) -> int:
    """Scenes of a batch on one GPU: the header says on how many it is meant to run."""
    text = config_path(name).read_text()
    found = re.search(r"train\.sh -g (\d+)", text)
    return config.batch_size // (int(found[1]) if found else 1)


def estimate(name: str) -> float | None:
    """Gigabytes that the header names."""
    found = re.search(r"Memory: about (\d+) GB", config_path(name).read_text())
    return float(found[1]) if found else None


def room(seed: int, points: int) -> dict[str, np.ndarray]:
    """Walls, floor and boxes in a room of 7 x 5 x 3 m, in proportion to their areas."""
    rng = np.random.default_rng(seed)
    blocks = [(np.zeros(3), np.array([7.0, 5.0, 3.0]))]
    for _ in range(12):
        size = rng.uniform([0.4, 0.4, 0.4], [1.6, 1.0, 1.2])
        blocks.append((np.append(rng.uniform([0, 0], [5, 4]), 0), size))
    faces = [(c, s, axis, side) for c, s in blocks for axis in range(3) for side in (0, 1)]
    areas = np.array([np.prod(np.delete(size, axis)) for _, size, axis, _ in faces])
    counts = rng.multinomial(points, areas / areas.sum())
    coords, normals = [], []
    for (corner, size, axis, side), count in zip(faces, counts):
        spot = rng.random((count, 3)) * size
        spot[:, axis] = side * size[axis]
        coords.append(corner + spot)
        normals.append(np.tile(np.eye(3)[axis] * (1 - 2 * side), (count, 1)))
    return dict(
        coord=np.concatenate(coords).astype(np.float32),
        normal=np.concatenate(normals).astype(np.float32),
        color=rng.uniform(0, 255, (points, 3)).astype(np.float32),
    )


def make_sample(name: str, dry: bool, number: int) -> dict:
    """What the config's transforms make of a scene."""
    from dos_plugin.host import HOST

    config = load(name, dry)
    parts = train_sets(config)
    part = parts[number % len(parts)]
    if dry:
        for transform in part.transform:
            if transform["type"] == "TwoViews":
                transform["max_size"] = 600
    if part.type in COLUMNS:
        columns = 150 if dry else COLUMNS[part.type]
        scan = generate_scan(number, Sensor(columns=columns))
        scene = {key: scan[key] for key in ("coord", "strength")}
    else:
        scene = room(number, 4000 if dry else ROOM)
    keys = list(scene)
    np.random.seed(number)
    return HOST.Compose(list(part.transform))(
        {**scene, "name": f"{number}", "index_valid_keys": keys}
    )


def as_arrays(name: str, dry: bool, number: int) -> dict:
    """A sample on its way between processes: tensors would take a file descriptor each."""
    sample = make_sample(name, dry, number)
    return {k: v.numpy() if torch.is_tensor(v) else v for k, v in sample.items()}


class Batches:
    """Samples by what their transforms are, made once, by all cores."""

    def __init__(self, dry: bool) -> None:
        self.dry = dry
        self.made: dict[str, list[dict]] = {}
        workers = min(16, os.cpu_count() or 1)
        context = get_context("spawn")
        self.map = map if dry else ProcessPoolExecutor(workers, mp_context=context).map

    def __call__(self, name: str, config: Any, count: int, device: str) -> dict[str, Any]:
        """A collated batch of so many scenes."""
        key = repr([(part.type, part.transform) for part in train_sets(config)])
        known = self.made.setdefault(key, [])
        work = partial(as_arrays, name, self.dry)
        for arrays in self.map(work, range(len(known), count)):
            known.append(
                {
                    k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v
                    for k, v in arrays.items()
                }
            )
        batch = collate(known[:count])
        return {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}


def trained(config: Any, device: str) -> Callable[[dict], float]:
    """A model as a function that takes a step on a batch and returns its seconds."""
    from dos_plugin.host import HOST

    torch.manual_seed(0)
    model = HOST.build_model(config.model).to(device).train()
    model.total_steps = 1000
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    amp = config.enable_amp and device == "cuda"  # spconv's CPU kernels know float32 alone

    def step(batch: dict) -> float:
        def work() -> None:
            optimizer.zero_grad()
            with torch.autocast(device, getattr(torch, config.amp_dtype), enabled=amp):
                loss = model(batch)["loss"]
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
            optimizer.step()
            model.after_optimizer_step()

        return common.seconds(work)

    return step


def points_of(batch: dict) -> int:
    """Points of both views."""
    return len(batch["view1_coord"]) + len(batch["view2_coord"])


def memory(device: str, dry: bool) -> tuple[list[dict], dict]:
    """A row per config; its batch is halved until it fits."""
    from dos_plugin.host import HOST

    batches, rows = Batches(dry), []
    configs = {name: load(name, dry) for name in pretrainings()[:: 6 if dry else 1]}
    known = HOST.MODELS.module_dict  # the host may lack the backbone of some
    configs = {n: config for n, config in configs.items() if config.model.backbone.type in known}
    step, built = None, ""
    for name, config in sorted(configs.items(), key=lambda item: repr(item[1].model)):
        if repr(config.model) != built:  # many configs have the same one
            step = None
            step, built = trained(config, device), repr(config.model)
        assert step is not None
        count = 2 if dry else scenes_a_process(name, config)
        row: dict[str, Any] = {"config": name, "scenes": count, "estimate_gb": estimate(name)}
        while row["scenes"]:
            try:
                row |= measure(step, batches(name, config, row["scenes"], device), device)
                break
            except torch.OutOfMemoryError:
                row |= {"too_many_scenes": row["scenes"], "scenes": row["scenes"] // 2}
            torch.cuda.empty_cache()
        rows.append(row)
        print(", ".join(f"{k} {common._cell(v)}" for k, v in row.items()), flush=True)
    rows.sort(key=lambda row: row["config"])
    return rows, {"attention": f"plain, patches of {PATCH}"}


def measure(step: Callable[[dict], float], batch: dict, device: str) -> dict[str, Any]:
    """Peak memory and time of steps on a batch."""
    step(batch)  # the first one makes the optimizer's states
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken = statistics.mean(step(batch) for _ in range(1 if device == "cpu" else 2))
    peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None
    points = points_of(batch)
    visible = int(batch["view1_visible"].sum() + batch["view2_visible"].sum())
    return {
        "points": points,
        "visible": visible,
        "peak_gb": peak,
        "step_s": taken,
        "points_per_s": points / taken,
    }


def profile(device: str, dry: bool) -> tuple[list[dict], dict]:
    """The kernels (operators on a CPU) that take most of a step's time."""
    activity = torch.profiler.ProfilerActivity
    config = load(PROFILED, dry)
    count = 2 if dry else scenes_a_process(PROFILED, config)
    batch = Batches(dry)(PROFILED, config, count, device)
    step = trained(config, device)
    for _ in range(1 if dry else 3):
        step(batch)
    activities = [activity.CPU] + ([activity.CUDA] if device == "cuda" else [])
    with torch.profiler.profile(activities=activities) as profiler:
        taken = step(batch)
    # On a GPU the operators that launch a kernel are listed as well, with its time as theirs.
    events = [
        (event.key, us, event.count)
        for event in profiler.key_averages()
        if (us := _own_time(event, device)) > 0
    ]
    total = sum(us for _, us, _ in events)
    rows = [
        {"kernel": key[:100], "ms": us / 1e3, "share": us / total, "calls": calls}
        for key, us, calls in sorted(events, key=lambda event: -event[1])[:TOP]
    ]
    return rows, {"config": PROFILED, "step_s": taken, "busy_s": total / 1e6}


def _own_time(event: Any, device: str) -> float:
    """Microseconds of a kernel, of an operator's own work on a CPU; 0 of what is neither."""
    if device == "cpu":
        return event.self_cpu_time_total
    on_gpu = event.device_type == torch.autograd.DeviceType.CUDA
    return event.self_device_time_total if on_gpu else 0.0


MODES = {"memory": memory, "profile": profile}


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("mode", choices=MODES)
    options.add_argument("--dry", action="store_true", help="small, on a CPU")
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    rows, summary = MODES[args.mode]("cpu" if args.dry else "cuda", args.dry)
    if args.mode == "profile":
        common.print_table(rows)
    common.write_json(args.json, rows, summary)


if __name__ == "__main__":
    main()
