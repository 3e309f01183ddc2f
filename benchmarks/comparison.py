"""DOS beside Pointcept's Sonata, training with labels, and random weights, on synthetic streets.

All by Pointcept's own, unmodified train script (without CUDA through `python -m dos_plugin.cpu`):
the same scans, voxels, augmentations, PT-v3m2, head, number of prototypes, optimizer and batch,
from `configs/dos/ablation/component-5-zipf.py` and `sonata.py` beside this file. Sonata trains
twice: for as many steps as DOS, and for as many whole epochs as take at least DOS's time. The
supervised run has the labels that the probes have, and about as much time as DOS. Frozen features
are judged by the same linear probe; the supervised run also by its own validation.

Time is CPU time of the training without CUDA, where other work may share the machine, else wall
time. Runs that have left a result are not repeated.
"""

import json
import math
import re
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import common
from dos_plugin.commands.split import write_split

CONFIGS = {
    "DOS": common.ROOT / "configs/dos/ablation/component-5-zipf.py",
    "Sonata": common.ROOT / "benchmarks/sonata.py",
    "supervised": common.ROOT / "configs/dos/semseg-dos-v1m1-9c-demo-ft.py",
}
# The config a probe builds the backbone from; Sonata's has a mask token.
PROBED_AS = {"Sonata": common.ROOT / "configs/dos/ablation/component-0-mask-token.py"}
RESULT = re.compile(r"Val result: mIoU/mAcc/allAcc ([\d.]+)/")


def train(method: str, name: str, seed: int, epoch: int, args: Any) -> dict[str, Any]:
    """Train and probe, unless that has happened; steps, seconds and mIoU of the run."""
    folder = (args.out / f"{name}-{seed}").resolve()
    result = folder / "result.json"
    settings = dict(
        epoch=epoch, data=str(args.data), fraction=args.fraction, batch_size=args.batch_size
    )
    if result.is_file():
        found = json.loads(result.read_text())
        if found["settings"] != settings:
            sys.exit(f"{folder}: was made with {found['settings']}, not {settings}; remove it")
        return found
    folder.mkdir(parents=True, exist_ok=True)
    labelled = (args.data / "few" / f"{args.fraction:g}-seed0").resolve()
    roots = [f"data.train.data_root={args.data.resolve()}"]
    if method == "supervised":
        roots = [f"data.train.data_root={labelled}", f"data.val.data_root={args.data.resolve()}"]
        roots += ["weight=None", f"batch_size={args.batch_size}", "eval_epoch=1"]
        # Fine-tuning slows the encoder down, which is not for random weights.
        roots += ["param_dicts=[]", "scheduler.max_lr=0.003"]
    else:
        roots += [f"eval_epoch={epoch}", f"batch_size={args.batch_size}"]
    options = [f"save_path={folder}", f"seed={seed}", f"epoch={epoch}", *roots]
    script = [common.TRAIN, "--config-file", str(CONFIGS[method]), "--options", *options]
    seconds = common.run_on_host("pointcept", script, folder / "train.out")
    probe = ["-m", "dos_plugin.cli", "probe", str(folder / "model/model_last.pth")]
    if method in PROBED_AS:
        probe += ["--config", str(PROBED_AS[method])]
    source = "segmentor" if method == "supervised" else "student"
    sources = [source] + ["random"] * (method == "DOS")
    probe += ["--data", str(labelled), "--train-scans", "1000", "--val-scans", "1000", "--no-knn"]
    probe += ["--seeds", "1", "--sources", *sources, "--json", str(folder / "scores.json")]
    common.run_on_host("pointcept", probe, folder / "probe.out")
    scores = json.loads((folder / "scores.json").read_text())["probe"]
    found = dict(settings=settings, seconds=seconds, miou=scores[source]["miou"])
    if "random" in scores:
        found["random"] = scores["random"]["miou"]
    if method == "supervised":
        found["own"] = 100 * float(RESULT.findall((folder / "train.out").read_text())[-1])
    result.write_text(json.dumps(found) + "\n")
    print(f"{name}, seed {seed}: {found['miou']:.1f} mIoU, {seconds:.0f} s", flush=True)
    return found


def one_seed(seed: int, args: Any) -> dict[str, dict[str, Any]]:
    """All runs of a seed."""
    dos = train("DOS", "dos", seed, args.epoch, args)
    steps = train("Sonata", "sonata-steps", seed, args.epoch, args)
    short = math.ceil(args.epoch * dos["seconds"] / steps["seconds"])
    return {
        "DOS": dos,
        "Sonata, equal steps": steps,
        "Sonata, equal time": train("Sonata", "sonata-time", seed, short, args),
        "supervised": train("supervised", "supervised", seed, args.supervised_epoch, args),
    }


def main() -> None:
    """Run, print, write."""
    options = common.parser(__doc__)
    options.add_argument("--data", type=Path, default=Path("data/dos-demo"))
    options.add_argument("--out", type=Path, default=Path("exp/comparison"))
    options.add_argument("--fraction", type=float, default=0.25, help="of the scans is labelled")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--batch-size", type=int, default=2)
    options.add_argument("--epoch", type=int, default=16, help="of DOS, over all scans")
    options.add_argument("--supervised-epoch", type=int, default=10, help="over the labelled scans")
    options.add_argument("--jobs", type=int, default=2, help="seeds at a time")
    args = options.parse_args()
    write_split(args.data, args.fraction, 0)
    with ThreadPoolExecutor(args.jobs) as pool:
        found = list(pool.map(lambda seed: one_seed(seed, args), args.seeds))
    rows: list[dict[str, Any]] = []
    for method in found[0]:
        runs = [seed[method] for seed in found]
        rows.append(row(method, [run["miou"] for run in runs], runs))
        if "own" in runs[0]:
            rows.append(row(f"{method}, its own head", [run["own"] for run in runs], runs))
    rows.append(row("random weights", [seed["DOS"]["random"] for seed in found], None))
    common.print_table(rows)
    by_name = {line["features"]: line["miou"] for line in rows}
    gains = {f"dos - {name}": by_name["DOS"] - value for name, value in by_name.items()}
    common.write_json(args.json, rows, gains)


def row(name: str, miou: list[float], runs: list[dict[str, Any]] | None) -> dict[str, Any]:
    """A line of the table."""
    return {
        "features": name,
        "miou": statistics.mean(miou),
        "std": statistics.stdev(miou) if len(miou) > 1 else 0.0,
        "seeds": " ".join(f"{value:.1f}" for value in miou),
        "epochs": " ".join(str(run["settings"]["epoch"]) for run in runs) if runs else None,
        "seconds": statistics.mean(run["seconds"] for run in runs) if runs else None,
    }


if __name__ == "__main__":
    main()
