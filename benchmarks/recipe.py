"""What of the demo's recipe counts: one factor at a time, on streets, looked at on real scans, too.

Each row trains the demo's config on the 160 synthetic streets by the embedded host, in one process,
with one thing changed, and probes the student's frozen features on labelled streets. With
``--real``, it probes the same weights on SemanticKITTI's training sequences, too: on three scans
each of places 02, 05 and 07, learnt from the seven others. Sequence 08 is not among them.

    python benchmarks/recipe.py --epoch 8 --jobs 2 --real ~/.cache/dos-plugin/real
    python benchmarks/recipe.py --rows "before" "now" --epoch 36 --seeds 0 1 2

A run that is finished is kept, so the same command goes on. Seconds are CPU time of the training.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import common
from dos_plugin.runs.training import digest, read_notes, write_notes
from dos_plugin.scenes import write_scenes

CONFIG = common.ROOT / "configs/dos/pretrain-dos-v1m1-9-demo.py"
VIEWS, MASK = "data.train.transform.2", "data.train.transform.3"
SCALE = f"{VIEWS}.view_transform.1.scale"


def model_of(*channels: int) -> dict[str, Any]:
    """A model with stages of these widths, heads of 16 channels, whose voxels are distilled."""
    backbone = dict(
        stride=[2] * (len(channels) - 1),
        enc_depths=[1] * len(channels),
        enc_channels=list(channels),
        enc_num_head=[width // 16 for width in channels],
        enc_patch_size=[128] * len(channels),
    )
    return dict(
        backbone=backbone, backbone_out_channels=sum(channels), up_cast_level=len(channels) - 1
    )


def stages(*channels: int) -> tuple[str, ...]:
    """The same as options."""
    model = model_of(*channels)
    backbone = model.pop("backbone")
    values = {f"backbone.{key}": value for key, value in backbone.items()} | model
    return tuple(f"model.{key}={value}".replace(" ", "") for key, value in values.items())


# The recipe before the search, from which each row changes one thing.
FINE = stages(32, 64, 128, 192)
BEFORE = (
    *FINE,
    "model.up_cast_level=2",
    "model.backbone_out_channels=384",
    f"{SCALE}=[0.95,1.05]",
)
STRETCH = f"{SCALE}=[0.8,1.2]"
FIFTH = (*stages(32, 64, 128, 192, 256), STRETCH)


FACTORS: dict[str, tuple[str, ...]] = {
    "before": (),
    "distilled at 0.2 m (level 3)": FINE,
    "distilled at 0.8 m (level 1)": ("model.up_cast_level=1", "model.backbone_out_channels=320"),
    "views of 2,000, 8 scenes": (f"{VIEWS}.max_size=2000", "batch_size=8"),
    "views of 8,000, 2 scenes": (f"{VIEWS}.max_size=8000", "batch_size=2"),
    "mask ratio 0.5": (f"{MASK}.mask_ratio=0.5",),
    "mask ratio 0.85": (f"{MASK}.mask_ratio=0.85",),
    "blocks of 2 m": (f"{MASK}.block_size=2.0",),
    "scale 0.8 to 1.2": (STRETCH,),
    "1,024 prototypes": ("model.num_prototypes=1024",),
    "momentum from 0.99": ("model.momentum_base=0.99",),
    "rate 0.002": ("optimizer.lr=0.002", "scheduler.max_lr=0.002"),
    "student temperature 0.2": ("model.student_temp=0.2",),
    "student temperature 0.07": ("model.student_temp=0.07",),
    "teacher temperature 0.04": ("model.teacher_temp_base=0.04",),
    "head of 512 and 256": ("model.head.hidden_channels=512", "model.head.out_channels=256"),
    "teacher's prototypes by EMA": ("model.teacher_prototypes=ema",),
    "alpha 0": ("model.sinkhorn.alpha=0.0",),
    "patches of 1,024": ("model.backbone.enc_patch_size=[1024,1024,1024,1024]",),
    "no weight decay": ("hooks.4.base_value=0.0", "hooks.4.final_value=0.0"),
    "drop path 0.2": ("model.backbone.drop_path=0.2",),
    "level 3, scale": (*FINE, STRETCH),  # now
    "level 3, scale, teacher at 0.04": (*FINE, STRETCH, "model.teacher_temp_base=0.04"),
    "level 3, scale, student at 0.07": (*FINE, STRETCH, "model.student_temp=0.07"),
    "level 3, scale, momentum from 0.99": (*FINE, STRETCH, "model.momentum_base=0.99"),
    "level 3, scale, blocks of 2 m": (*FINE, STRETCH, f"{MASK}.block_size=2.0"),
    "level 3, scale, rate 0.0005": (
        *FINE,
        STRETCH,
        "optimizer.lr=0.0005",
        "scheduler.max_lr=0.0005",
    ),
    "level 3, scale, mask 0.5": (*FINE, STRETCH, f"{MASK}.mask_ratio=0.5"),
    "level 3, scale, 1.5 x as wide": (*stages(48, 96, 192, 256), STRETCH),
    "level 3, scale, 2 x as wide": (*stages(64, 128, 256, 384), STRETCH),
    "level 3, scale, two blocks in the coarse stages": (
        *FINE,
        STRETCH,
        "model.backbone.enc_depths=[1,1,2,2]",
    ),
    "level 3, scale, two blocks in all stages": (
        *FINE,
        STRETCH,
        "model.backbone.enc_depths=[2,2,2,2]",
    ),
    "level 3, scale, blocks of 0.5 m": (*FINE, STRETCH, f"{MASK}.block_size=0.5"),
    "fifth stage": FIFTH,
    "fifth stage, 2 scenes": (*FIFTH, "batch_size=2"),
    "fifth stage, 8 scenes": (*FIFTH, "batch_size=8"),
    "fifth stage, mask 0.5": (*FIFTH, f"{MASK}.mask_ratio=0.5"),
    "fifth stage, wide": (*stages(32, 64, 128, 256, 384), STRETCH),
    "sixth stage": (*stages(32, 64, 128, 192, 256, 384), STRETCH),
}
NOW = "now"  # the shipped config as it is
# The demo's hooks that train; those that draw and probe would take as long again.
HOOKS = [
    dict(type="CheckpointLoader"),
    dict(type="ModelHook"),
    dict(type="NonFiniteGuard"),
    dict(type="IterationTimer", warmup_iter=2),
    dict(type="StepWeightDecay", base_value=0.04, final_value=0.2),
    dict(type="InformationWriter"),
    dict(type="CheckpointSaver"),
]
# Epochs of a row, where a step has more scenes or fewer: at equal time.
LENGTH = {"views of 2,000, 8 scenes": 2.0, "views of 8,000, 2 scenes": 0.5}
HELD_OUT, FRAMES = ("02", "05", "07"), ("000000", "000004", "000009")
UNUSED = "08"


def held_out_root(real: Path, out: Path) -> Path:
    """A SemanticKITTI root of links whose sequence 08 holds frames of three training places."""
    sequences = real / "semantic_kitti/dataset/sequences"
    made = out / "held-out/dataset/sequences"
    for folder in sorted(sequences.iterdir()):
        if folder.name not in (*HELD_OUT, UNUSED) and not (made / folder.name).exists():
            made.mkdir(parents=True, exist_ok=True)
            (made / folder.name).symlink_to(folder, target_is_directory=True)
    for kind, ending in (("velodyne", "bin"), ("labels", "label")):
        for place in HELD_OUT:
            (made / place / kind).mkdir(parents=True, exist_ok=True)
            (made / UNUSED / kind).mkdir(parents=True, exist_ok=True)
            for frame in FRAMES:
                link = made / UNUSED / kind / f"{place}{frame[2:]}.{ending}"
                if not link.exists():
                    link.symlink_to(sequences / place / kind / f"{frame}.{ending}")
    return out / "held-out"


def run(args: Any, row: str, seed: int) -> dict[str, Any]:
    """Train and probe, unless that has happened; mIoU in percent by place, CPU seconds."""
    epoch = round(args.epoch * LENGTH.get(row, 1))
    options = [] if row == NOW else [*BEFORE, *FACTORS[row]]
    options += [f"epoch={epoch}", f"eval_epoch={epoch}", f"seed={seed}", "num_worker=0"]
    folder = args.out / "".join(c if c.isalnum() else "-" for c in row) / f"seed-{seed}"
    settings = digest([CONFIG.read_text(), HOOKS, options])
    found = read_notes(folder / "result.json")
    if found.get("settings") != settings:
        folder.mkdir(parents=True, exist_ok=True)
        ours = folder / "ours.py"
        ours.write_text(f"_base_ = [{str(CONFIG)!r}]\nhooks = {HOOKS!r}\n")
        options += [f"save_path={folder}", f"data.train.data_root={args.data}"]
        words = [common.TRAIN, "--config-file", str(ours), "--options", *options]
        seconds = common.run_on_host("embedded", words, folder / "train.out")
        found = dict(settings=settings, seconds=seconds)
    if "streets" not in found:
        found["streets"] = probe(folder, args.data, ["--train-scans", "24", "--val-scans", "24"])
    if args.real and "real" not in found:
        config = folder / "real.py"
        train = dict(type="SemanticKITTIDataset", split="train")
        config.write_text(
            f"_base_ = [{str(folder / 'config.py')!r}]\ndata = dict(train={train!r})\n"
        )
        words = ["--config", str(config), "--train-scans", "21", "--val-scans", "9"]
        found["real"] = probe(folder, held_out_root(args.real, args.out), words)
    write_notes(folder / "result.json", found)
    print(f"{row}, seed {seed}: {found['streets']['student']:.1f}", flush=True)
    return found


def probe(folder: Path, data: Path, words: Sequence[str]) -> dict[str, float]:
    """mIoU of the student and of random weights."""
    out = folder / f"probe-{data.name}.json"
    words = ["-m", "dos_plugin.cli", "probe", str(folder / "model/model_last.pth"), *words]
    words += ["--no-knn", "--seeds", "2", "--sources", "student", "random", "--data", str(data)]
    common.run_on_host("embedded", [*words, "--json", str(out)], out.with_suffix(".out"))
    return {name: entry["miou"] for name, entry in json.loads(out.read_text())["probe"].items()}


def summary(row: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row for printing: all seeds, and the gain over random weights."""
    line: dict[str, Any] = {"row": row}
    for place in ("streets", "real"):
        found = [run[place] for run in runs if place in run]
        if found:
            line[place] = " ".join(f"{entry['student']:.1f}" for entry in found)
            line["gain, " + place] = statistics.mean(e["student"] - e["random"] for e in found)
    line["seconds"] = round(statistics.mean(run["seconds"] for run in runs))
    return line


def main() -> None:
    """Run, print, write."""
    options = common.parser(__doc__)
    add = options.add_argument
    rows = [*FACTORS, NOW]
    add("--rows", nargs="+", choices=rows, default=rows, metavar="ROW", help="; ".join(rows))
    add("--epoch", type=int, default=8, help="of 40 steps; the demo has 34; default %(default)s")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--data", type=Path, default=Path("data/dos-demo"), help="streets; default %(default)s")
    add("--real", type=Path, help="also on real scans: the folder that has semantic_kitti")
    add("--out", type=Path, default=Path("exp/recipe"), help="default %(default)s")
    add("--jobs", type=int, default=1, help="runs at a time")
    args = options.parse_args()
    args.out, args.data = args.out.absolute() / f"epoch-{args.epoch}", args.data.absolute()
    if args.real:
        args.real = args.real.expanduser().absolute()
        if not (args.real / "semantic_kitti/dataset/sequences").is_dir():
            sys.exit(f"--real: no semantic_kitti/dataset/sequences in {args.real}")
    write_scenes(args.data, dict(train=160, val=40), seed=0, workers=args.jobs)
    wanted = [(row, seed) for row in args.rows for seed in args.seeds]
    with ThreadPoolExecutor(args.jobs) as pool:
        found = list(pool.map(lambda one: run(args, *one), wanted))
    lines = [
        summary(row, [result for (other, _), result in zip(wanted, found) if other == row])
        for row in args.rows
    ]
    common.print_table(lines)
    common.write_json(args.json, lines, {})


if __name__ == "__main__":
    main()
