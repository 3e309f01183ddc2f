"""Run by test_troubleshooting.py on the real host: provokes the messages of Pointcept itself.

usage: python troubleshooting_pointcept.py SCRATCH

Prints one JSON object: of each case what was said. Run by plain ``python``: the first case is about
what a machine lacks, which the second fills in.
"""

import argparse
import importlib
import json
import logging
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

CASES: list[Callable] = []


def case(function: Callable) -> Callable:
    """Marks what is called, in the order of the file; returns or raises the message."""
    CASES.append(function)
    return function


@case
def missing_package(scratch: Path) -> None:
    importlib.import_module("pointcept.models")


@case
def unknown_model(scratch: Path) -> None:
    from dos_plugin.cpu import activate

    activate(announce=False)
    from pointcept.models.builder import build_model

    build_model(dict(type="DOS-v1m1"))


@case
def failed_import(scratch: Path) -> None:
    from pointcept.utils.config import Config

    path = scratch / "imports.py"
    path.write_text("custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)")
    Config.fromfile(str(path))


@case
def several_processes(scratch: Path) -> None:
    from pointcept.engines.launch import _distributed_worker

    _distributed_worker(0, print, 2, 2, 0, "tcp://127.0.0.1:1", ())


@case
def default_setup(scratch: Path) -> str:
    from pointcept.engines.defaults import default_setup

    sizes = dict(batch_size_val=None, batch_size_test=None, epoch=10, eval_epoch=4)
    try:
        default_setup(SimpleNamespace(num_worker=1, batch_size=2, **sizes))
    except AssertionError:
        return traceback.format_exc()
    raise RuntimeError("no error")


@case
def no_workers(scratch: Path) -> None:
    train_loader(scratch / "data", 0)


@case
def no_scans(scratch: Path) -> None:
    train_loader(scratch / "nothing", 1)


def train_loader(root: Path, workers: int) -> None:
    from pointcept.engines.train import Trainer
    from pointcept.utils.config import ConfigDict

    data = dict(type="DefaultDataset", split="train", data_root=str(root), transform=[])
    (root.parent / "data/train/scan").mkdir(parents=True, exist_ok=True)
    cfg = ConfigDict(data=dict(train=data), num_worker_per_gpu=workers, seed=0, mix_prob=0)
    cfg.update(batch_size=1, batch_size_per_gpu=1)
    Trainer.build_train_loader(SimpleNamespace(cfg=cfg))


def schedule(total_steps: int, max_lr: object = 0.1, **options: object) -> object:
    from pointcept.utils.config import ConfigDict
    from pointcept.utils.scheduler import build_scheduler

    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    cfg = dict(type="OneCycleLR", total_steps=total_steps, max_lr=max_lr, **options)
    return build_scheduler(ConfigDict(cfg), optimizer)


@case
def short_warmup(scratch: Path) -> None:
    schedule(total_steps=20, pct_start=0.05)


@case
def rates(scratch: Path) -> None:
    schedule(total_steps=20, max_lr=[0.1, 0.01])


@case
def longer_run(scratch: Path) -> None:
    """As the host's loader: the schedule of the longer run takes over the state of the old one."""
    old, new = schedule(total_steps=4), schedule(total_steps=8)
    new.load_state_dict(old.state_dict())
    for _ in range(8):
        new.step()


@case
def flash(scratch: Path) -> None:
    backbone("point_transformer_v3.point_transformer_v3m2_sonata", "PT-v3m2")


@case
def litept(scratch: Path) -> None:
    see(backbone("litept.litept_v1", "LitePT-v1"), channels=4)


@case
def ocnn(scratch: Path) -> None:
    """Raises in v1.6.0 alone."""
    from pointcept.models.modules import PointSequential

    PointSequential(torch.nn.Linear(4, 4))(torch.rand(2, 4))


@case
def other_features(scratch: Path) -> None:
    module = "point_transformer_v3.point_transformer_v3m2_sonata"
    see(backbone(module, "PT-v3m2", enable_flash=False), channels=6)


def backbone(module: str, name: str, **options: object) -> torch.nn.Module:
    """A backbone on a machine without flash attention, for which the CPU runner stands in."""
    from pointcept.models.builder import build_model

    importlib.import_module(f"pointcept.models.{module}").flash_attn = None
    return build_model(dict(type=name, in_channels=4, **options))


def see(model: torch.nn.Module, channels: int) -> None:
    from pointcept.models.utils.structure import Point

    cloud = dict(coord=torch.rand(200, 3), feat=torch.rand(200, channels))
    model(Point(grid_size=0.1, offset=torch.tensor([200]), **cloud))


@case
def mixed_views(scratch: Path) -> None:
    from pointcept.datasets.utils import point_collate_fn

    views = dict(view1_coord=torch.rand(9, 3), view1_offset=torch.tensor([9]))
    point_collate_fn([dict(views), dict(views)], mix_prob=1)


@case
def config_not_written(scratch: Path) -> None:
    from pointcept.utils.config import Config

    path = scratch / "quoted.py"
    path.write_text("""name = "the driver's scans"\n""")
    try:
        Config.fromfile(str(path)).dump(str(scratch / "written.py"))
    finally:
        assert not (scratch / "written.py").read_text()


@case
def none_is_text(scratch: Path) -> None:
    from pointcept.utils.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument("--options", nargs="+", action=DictAction)
    options = parser.parse_args(["--options", "clip_grad=None"]).options
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.ones(1)
    torch.nn.utils.clip_grad_norm_([weight], options["clip_grad"])


def load(weight: Path, **options: object) -> str:
    from pointcept.engines.hooks.misc import CheckpointLoader

    said: list[str] = []
    hook = CheckpointLoader(**options)
    hook.trainer = SimpleNamespace(
        cfg=SimpleNamespace(weight=str(weight), resume=False),
        model=torch.nn.Linear(2, 1),
        logger=SimpleNamespace(info=said.append),
    )
    hook.before_train()
    return "\n".join(said)


@case
def weight_not_found(scratch: Path) -> str:
    return load(scratch / "no-such.pth")


@case
def names_do_not_match(scratch: Path) -> str:
    torch.save(dict(state_dict={"student.weight": torch.zeros(1, 2)}), scratch / "other.pth")
    return load(scratch / "other.pth")


@case
def weights_only(scratch: Path) -> None:
    """The best score of the host's saver is a NumPy number; v1.6.0 leaves weights_only to torch."""
    content = dict(state_dict={}, best_metric_value=np.float64(0.5))
    torch.save(content, scratch / "scored.pth")
    load(scratch / "scored.pth")
    torch.load(scratch / "scored.pth")  # as in v1.6.0; newer ones say what they want


@case
def no_scans_for_a_probe(scratch: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from dos_plugin.probing.scans import ScanSource
    from dos_plugin.runs.run import open_run
    from tests.tiny_run import write_config

    run = open_run(write_config(scratch / "run", scratch / "data"))
    ScanSource(run, split="few")


def said_by(function: Callable, scratch: Path) -> str:
    try:
        with redirect_stdout(sys.stderr):
            return function(scratch) or ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    folder = Path(sys.argv[1])
    json.dump({function.__name__: said_by(function, folder) for function in CASES}, sys.stdout)
