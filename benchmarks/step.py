"""A whole training step of DOS beside one of the host's Sonata.

Same host, backbone (PT-v3m2), scenes, grid, augmentations, size of the global views, head, number
of prototypes and optimizer. Sonata has its two global and four local views a scene, mask ratio 0.7
and its own number of losses. Crops are random and differ in density, so steps go over several
batches (`--repeats`), each once, and times are means. A step is forward, backward, gradient
clipping, optimizer and EMA; its parts are timed inside DOS's own methods and Sonata's own modules.
Peak memory is what a step on the first batch needs on top of a model that has trained for a step
already. Without CUDA the host runs through `python -m dos_plugin.cpu`, with plain attention.
"""

import argparse
import functools
import os
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))  # run by `-m dos_plugin.cpu`, too

import common
from dos_plugin.cpu.checkout import find_pointcept
from dos_plugin.scenes.sensor import Sensor, generate_scan
from views import AUGMENTATIONS, LOCAL_SCALE, SCALE

FEATURES = ("coord", "strength")
WIDTHS = {  # channels and depths of the stages
    "paper": ((48, 96, 192, 384, 512), (3, 3, 3, 12, 3)),
    "small": ((32, 64, 128, 192, 256), (1, 1, 1, 2, 1)),
}
HEAD = dict(hidden=4096, out=256)


class Stopwatch:
    """Adds up the seconds of parts of a step, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        common.synchronize()
        start = time.perf_counter()
        yield
        common.synchronize()
        self.seconds[name] += time.perf_counter() - start

    def watch(self, owner: Any, method: str, name: Callable[..., str]) -> None:
        """Time a method of an object under the name that its arguments give it."""
        inner = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name(*args)):
                return inner(*args, **kwargs)

        object.__setattr__(owner, method, timed)


def backbone(widths: str, patch_size: int, flash: bool, **more: Any) -> dict[str, Any]:
    """Config of the host's PT-v3m2 encoder."""
    channels, depths = WIDTHS[widths]
    return dict(
        type="PT-v3m2",
        in_channels=4,
        enc_depths=depths,
        enc_channels=channels,
        enc_num_head=tuple(c // 16 for c in channels),
        enc_patch_size=(patch_size,) * 5,
        stride=(2, 2, 2, 2),
        drop_path=0.3,
        enable_flash=flash,
        enc_mode=True,
        **more,
    )


@functools.cache
def _street(scene: int, columns: int) -> dict[str, np.ndarray]:
    return generate_scan(scene, Sensor(columns=columns))


def make_batch(transforms: list[dict], seed: int, columns: int, scenes: int, device: str) -> dict:
    """A collated batch of synthetic streets, seen through the transforms."""
    from pointcept.datasets.utils import point_collate_fn

    from dos_plugin.host import HOST

    random.seed(seed)
    np.random.seed(seed)
    samples = []
    for scene in range(scenes):
        street = _street(scene, columns)
        sample = {key: street[key].copy() for key in FEATURES} | {"index_valid_keys": [*FEATURES]}
        samples.append(HOST.Compose(transforms)(sample))
    batch = point_collate_fn(samples)
    return {key: v.to(device) if torch.is_tensor(v) else v for key, v in batch.items()}


def _batches(transforms: list[dict], args: Any, columns: int) -> list[dict]:
    seeds = range(args.seed, args.seed + args.repeats)
    return [make_batch(transforms, seed, columns, args.scenes, args.device) for seed in seeds]


def dos_side(args: Any, stopwatch: Stopwatch, columns: int) -> tuple[nn.Module, list, Callable]:
    """DOS's model, batches and what follows the optimizer."""
    from dos_plugin.host import HOST

    grid = dict(type="GridSample", grid_size=args.grid_size, mode="train")
    transforms = [
        dict(type="PointId"),
        grid,
        dict(
            type="TwoViews",
            view_keys=("coord", "strength", "point_id"),
            view_scale=SCALE,
            max_size=args.max_size,
            view_transform=[*AUGMENTATIONS, grid | dict(return_grid_coord=True)],
        ),
        dict(type="BlockMask", block_size=1.0, mask_ratio=0.7),
        dict(type="ToTensor"),
        dict(type="Update", keys_dict=dict(grid_size=args.grid_size)),
        dict(
            type="Collect",
            keys=(
                "grid_size",
                *(
                    f"{view}_{key}"
                    for view in ("view1", "view2")
                    for key in ("coord", "grid_coord", "point_id", "visible")
                ),
            ),
            offset_keys_dict=dict(view1_offset="view1_coord", view2_offset="view2_coord"),
            view1_feat_keys=tuple(f"view1_{key}" for key in FEATURES),
            view2_feat_keys=tuple(f"view2_{key}" for key in FEATURES),
        ),
    ]
    model = HOST.build_model(
        dict(
            type="DOS-v1m1",
            backbone=backbone(args.widths, args.patch_size, args.flash),
            teacher_custom=dict(drop_path=0.0),
            backbone_out_channels=sum(WIDTHS[args.widths][0][2:]),
            head=dict(hidden_channels=HEAD["hidden"], out_channels=HEAD["out"]),
            num_prototypes=args.prototypes,
        )
    )
    model.total_steps = 1000
    stopwatch.watch(
        model, "embed", lambda branch, *_: "teacher" if branch is model.teacher else "student"
    )
    stopwatch.watch(model, "_loss", lambda *_: "loss")
    return model, _batches(transforms, args, columns), model.after_optimizer_step


def sonata_side(args: Any, stopwatch: Stopwatch, columns: int) -> tuple[nn.Module, list, Callable]:
    """Sonata's model, batches and what follows the optimizer."""
    from dos_plugin.host import HOST

    transforms = [
        dict(type="GridSample", grid_size=args.grid_size, mode="train"),
        dict(type="Copy", keys_dict=dict(coord="origin_coord")),
        dict(
            type="MultiViewGenerator",
            view_keys=("coord", "origin_coord", "strength"),
            global_view_num=2,
            global_view_scale=SCALE,
            local_view_num=4,
            local_view_scale=LOCAL_SCALE,
            global_transform=AUGMENTATIONS,
            local_transform=AUGMENTATIONS,
            max_size=args.max_size,
        ),
        dict(type="ToTensor"),
        dict(type="Update", keys_dict=dict(grid_size=args.grid_size)),
        dict(
            type="Collect",
            keys=(
                "grid_size",
                *(
                    f"{view}_{key}"
                    for view in ("global", "local")
                    for key in ("origin_coord", "coord", "offset")
                ),
            ),
            offset_keys_dict=dict(),
            global_feat_keys=tuple(f"global_{key}" for key in FEATURES),
            local_feat_keys=tuple(f"local_{key}" for key in FEATURES),
        ),
    ]
    model = HOST.build_model(
        dict(
            type="Sonata-v1m1",
            backbone=backbone(
                args.widths, args.patch_size, args.flash, traceable=True, mask_token=True
            ),
            teacher_custom=dict(drop_path=0.0),
            head_in_channels=sum(WIDTHS[args.widths][0][2:]),
            head_hidden_channels=HEAD["hidden"],
            head_embed_channels=HEAD["out"],
            head_num_prototypes=args.prototypes,
            mask_jitter=0.01,
            match_max_r=16 * args.grid_size,
        )
    )
    model.mask_size, model.mask_ratio, model.momentum = 20 * args.grid_size, 0.7, 0.994
    for branch in ("teacher", "student"):
        for module in getattr(model, branch).values():
            stopwatch.watch(module, "forward", lambda *_, name=branch: name)
    return model, _batches(transforms, args, columns), model.after_step


SIDES = {"dos": dos_side, "sonata": sonata_side}


class Step:
    """A side ready to train."""

    def __init__(self, side: str, args: Any, columns: int) -> None:

        import dos_plugin.register  # noqa: F401

        torch.manual_seed(args.seed)
        self.stopwatch = Stopwatch()
        self.model, self.batches, self.update = SIDES[side](args, self.stopwatch, columns)
        self.steps = 0
        self.model.to(args.device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.args = args

    def __call__(self) -> None:
        part = self.stopwatch.part
        amp = self.args.amp != "none"
        dtype = getattr(torch, self.args.amp) if amp else None
        with (
            part("forward"),
            torch.autocast(self.args.device.split(":")[0], enabled=amp, dtype=dtype),
        ):
            loss = self.model(self.batches[self.steps % len(self.batches)])["loss"]
        self.steps += 1
        with part("backward"):
            self.optimizer.zero_grad()
            loss.backward()
        with part("optimizer"):
            nn.utils.clip_grad_norm_(self.model.parameters(), 3.0)
            self.optimizer.step()
        with part("ema"):
            self.update()

    @property
    def points(self) -> int:
        """Points of all views of a batch, on average."""
        views = ("view1", "view2", "global", "local")
        sizes = [len(b.get(f"{view}_coord", ())) for b in self.batches for view in views]
        return sum(sizes) // len(self.batches)


def prepared(side: str, args: Any) -> Sequence[Step]:
    """A side after a step on a thin batch, which makes gradients and optimizer states."""
    step = Step(side, args, columns=args.columns)
    full, step.batches = step.batches[:1], SIDES[side](args, Stopwatch(), args.columns // 8)[1][:1]
    step()
    step.batches, step.steps = full, 0
    return [step]


def run(step: Step) -> None:
    """One step."""
    step()


def on_the_host() -> None:
    """Start anew inside the host, where this process is not there yet."""
    if os.environ.get("DOS_HOST") == "pointcept":
        return
    root = find_pointcept()
    if root is None:
        sys.exit("no Pointcept checkout at POINTCEPT_ROOT or ~/.cache/dos-plugin/Pointcept")
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "DOS_HOST": "pointcept",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    command = [sys.executable, "-m", "dos_plugin.cpu", os.path.abspath(__file__), *sys.argv[1:]]
    os.execve(sys.executable, command, environment)


def main() -> None:
    """Measure, print, write."""
    options = common.parser(__doc__, repeats=3)
    cuda = torch.cuda.is_available()
    options.add_argument("--widths", choices=WIDTHS, default="paper")
    options.add_argument("--scenes", type=int, default=4 if cuda else 1)
    options.add_argument("--columns", type=int, default=2000, help="of the synthetic scans")
    options.add_argument("--max-size", type=int, default=65536 if cuda else 16384)
    options.add_argument("--grid-size", type=float, default=0.05, help="metres")
    options.add_argument("--patch-size", type=int, default=1024 if cuda else 128)
    options.add_argument("--prototypes", type=int, default=1024)
    options.add_argument(
        "--amp", choices=("none", "bfloat16"), default="bfloat16" if cuda else "none"
    )
    options.add_argument("--flash", action=argparse.BooleanOptionalAction, default=cuda)
    options.add_argument("--no-memory", action="store_true", help="measure times alone")
    args = options.parse_args()
    on_the_host()
    steps = {side: Step(side, args, args.columns) for side in SIDES}
    for step in steps.values():
        for _ in range(args.warmup):
            step()
        step.stopwatch.seconds.clear()
        step.steps = 0
    times = common.alternate(steps, args.repeats, warmup=0)
    rows: list[dict[str, Any]] = []
    for side in SIDES:
        step = steps.pop(side)  # both models and their activations would take up the memory below
        seconds = {key: value / args.repeats for key, value in step.stopwatch.seconds.items()}
        inner = sum(seconds.get(key, 0.0) for key in ("teacher", "student", "loss"))
        rows.append(
            {
                "side": side,
                "points": step.points,
                "step_s": statistics.mean(times[side]),
                "teacher_s": seconds["teacher"],
                "student_s": seconds["student"],
                "loss_s": seconds.get("loss"),
                "rest_of_forward_s": seconds["forward"] - inner,
                "backward_s": seconds["backward"],
                "optimizer_s": seconds["optimizer"],
                "ema_s": seconds["ema"],
            }
        )
    del step
    for row in rows if not args.no_memory else ():
        prepare = functools.partial(prepared, row["side"], args)
        row["memory_mb"] = common.extra_peak_memory(run, prepare, args.device) / 2**20
    common.print_table(
        [dict(zip(("part", *SIDES), (key, *(row[key] for row in rows)))) for key in rows[0]]
    )
    dos, sonata = rows
    summary = {
        "time_ratio_vs_sonata": dos["step_s"] / sonata["step_s"],
        "loss_share": dos["loss_s"] / dos["step_s"],
    }
    if not args.no_memory:
        summary["memory_ratio_vs_sonata"] = dos["memory_mb"] / sonata["memory_mb"]
    print()
    common.print_table([{"summary": key, "value": value} for key, value in summary.items()])
    common.write_json(args.json, rows, summary)


if __name__ == "__main__":
    main()
