"""What a DOS checkpoint is worth with few labels: the demo's three segmentation configs, each from
the checkpoint and from random weights, on a fraction of the labelled synthetic streets.

Linear probe, decoder probe and full fine-tuning run as users run them, by the train script of the
embedded host or of Pointcept (through `python -m dos_plugin.cpu`), from the shipped configs cut
down by `--options`: the same number of optimizer steps on the same scans for both sides. A seed
chooses the labelled scans, too. mIoU is that of the validation scans after the last step. Runs that
have left a log are not repeated.
"""

import re
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import common
from dos_plugin.commands.split import write_split

CONFIGS = {
    "linear probe": "semseg-dos-v1m1-9a-demo-lin.py",
    "decoder probe": "semseg-dos-v1m1-9b-demo-dec.py",
    "fine-tuning": "semseg-dos-v1m1-9c-demo-ft.py",
}
RESULT = re.compile(r"Val result: mIoU/mAcc/allAcc ([\d.]+)/")


class Run(NamedTuple):
    """One training."""

    task: str
    start: str  # "DOS" or "random"
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}-{self.start}-{self.seed}".replace(" ", "-")


def train(run: Run, args, scans: Path) -> float:
    """Train, if that has not happened yet; mIoU in percent."""
    log = args.out / args.host / f"{run.name}.log"
    if not log.exists():
        folder = args.out / args.host / run.name
        options = [
            f"weight={args.weight.resolve() if run.start == 'DOS' else None}",
            f"save_path={folder.resolve()}",
            f"data.train.data_root={scans.resolve()}",
            f"data.val.data_root={args.data.resolve()}",
            f"seed={run.seed}",
            f"batch_size={args.batch_size}",
            f"epoch={args.epoch}",
            "eval_epoch=1",
        ]
        config = str(common.ROOT / "configs/dos" / CONFIGS[run.task])
        partial = log.with_suffix(".partial")
        words = [common.TRAIN, "--config-file", config, "--options", *options]
        common.run_on_host(args.host, words, partial)
        if not RESULT.search(partial.read_text()):
            sys.exit(f"{run.name} failed, see {partial}")
        partial.rename(log)
    miou = 100 * float(RESULT.findall(log.read_text())[-1])
    print(f"{run.task}, {run.start} weights, seed {run.seed}: mIoU {miou:.1f}", flush=True)
    return miou


def main() -> None:
    """Run, print, write."""
    options = common.parser(__doc__)
    options.add_argument("--host", choices=common.HOSTS, default="embedded")
    options.add_argument("--weight", type=Path, default=Path("exp/dos/demo/model/model_last.pth"))
    options.add_argument("--data", type=Path, default=Path("data/dos-demo"))
    options.add_argument("--out", type=Path, default=Path("exp/few-labels"))
    options.add_argument("--fraction", type=float, default=0.01, help="of the training scans")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--tasks", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    options.add_argument("--batch-size", type=int, default=2)
    options.add_argument("--epoch", type=int, default=100, help="passes over the labelled scans")
    options.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    args = options.parse_args()
    labelled = {seed: write_split(args.data, args.fraction, seed).out for seed in args.seeds}
    runs = [
        Run(task, start, seed)
        for seed in args.seeds
        for task in args.tasks
        for start in ("DOS", "random")
    ]
    with ThreadPoolExecutor(args.jobs) as pool:
        miou = dict(zip(runs, pool.map(lambda run: train(run, args, labelled[run.seed]), runs)))
    rows, summary = [], {}
    for task in args.tasks:
        row: dict[str, object] = {"task": task}
        for start in ("DOS", "random"):
            values = [miou[Run(task, start, seed)] for seed in args.seeds]
            row[start] = statistics.mean(values)
            row[f"{start}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
            row[f"{start}_seeds"] = " ".join(f"{value:.1f}" for value in values)
        rows.append(row)
        summary[f"gain {task}"] = row["DOS"] - row["random"]  # type: ignore[operator]
    common.print_table(rows)
    common.write_json(args.json, rows, summary)


if __name__ == "__main__":
    main()
