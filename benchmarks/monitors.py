"""What PrototypeMonitor costs: training steps with a measurement beside steps without.

Model, batch size, augmentations and data of the demo's config (`--config`, `--data`), on the
embedded host, both sides alternating in one process. Each round takes another batch, the same for
both sides. The share is the extra time of a measured step, divided by the steps from one
measurement to the next, of the time of a step; loading is not counted.
"""

import itertools
import os
import sys
import tempfile
from functools import partial
from typing import Any

import common

os.environ["DOS_HOST"] = "minihost"


class Steps:
    """A trainer that takes single steps, measured or not.

    Args:
        config: Config file of a pretraining.
        data: Root of its data set; None is the config's.
        save_path: Folder for the run's files.
    """

    def __init__(self, config: str, data: str | None, save_path: str) -> None:
        from dos_plugin.hooks.monitor import PrototypeMonitor
        from dos_plugin.minihost.config import load_config, setup_config
        from dos_plugin.minihost.trainer import Trainer

        options: dict[str, Any] = {"save_path": save_path, "num_worker": 0}
        if data is not None:
            options["data.train.data_root"] = data
        cfg = load_config(config, options)
        cfg.hooks = [h for h in cfg.hooks if h.type in ("ModelHook", "PrototypeMonitor")]
        self.trainer = Trainer(setup_config(cfg))
        self.model: Any = self.trainer.model
        self.monitor = next(h for h in self.trainer.hooks if isinstance(h, PrototypeMonitor))
        for hook in self.trainer.hooks:
            hook.before_train()
        self.model.train()
        self.batches = itertools.cycle(list(itertools.islice(self.trainer.train_loader, 4)))
        self.turn = 0

    def __call__(self, measured: bool) -> None:
        """A step; the batch is another one for every second step."""
        if self.turn % 2 == 0:
            self.batch = next(self.batches)
        self.turn += 1
        trainer = self.trainer
        trainer.comm_info.update(iter=0, input_dict=dict(self.batch))
        self.monitor.last_step = None if measured else self.model.step
        for hook in trainer.hooks:
            hook.before_step()
        if (self.model.observer is not None) != measured:
            raise RuntimeError(f"measured={measured}, but the hook decided otherwise")
        trainer.run_step()
        for hook in trainer.hooks:
            hook.after_step()


def main() -> None:
    """Measure, print, write."""
    options = common.parser(__doc__, repeats=15, warmup=2)
    default = common.ROOT / "configs/dos/pretrain-dos-v1m1-9-demo.py"
    options.add_argument("--config", default=str(default), help="default: the demo's")
    options.add_argument("--data", metavar="FOLDER", help="default: data_root of the config")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            steps = Steps(args.config, args.data, folder)
        except (FileNotFoundError, ValueError) as error:
            sys.exit(f"error: {error}")
        sides = {"plain": partial(steps, False), "measured": partial(steps, True)}
        times = common.alternate(sides, args.repeats, args.warmup)
        if steps.trainer.writer is not None:
            steps.trainer.writer.close()
    step, extra = common.median(times["plain"]), _extra(times)
    interval = steps.monitor.interval
    rows = [
        {"side": side, "median_s": common.median(taken), "fastest_s": min(taken)}
        for side, taken in times.items()
    ]
    summary = {
        "measurement_s": extra,
        "share_of_its_step": extra / step,
        "interval": interval,
        "share_at_the_interval": extra / step / interval,
    }
    common.print_table(rows)
    print()
    common.print_table([{"summary": key, "value": value} for key, value in summary.items()])
    common.write_json(args.json, rows, summary)


def _extra(times: dict[str, list[float]]) -> float:
    """Median over rounds of the difference between the sides, which had the same batch."""
    return common.median([b - a for a, b in zip(times["plain"], times["measured"])])


if __name__ == "__main__":
    main()
