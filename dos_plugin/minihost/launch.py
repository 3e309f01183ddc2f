"""The command ``python -m dos_plugin.minihost``: one process, or several that share the batches."""

import argparse
import os
import socket
import sys
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from dos_plugin.messages import one_line

from .config import add_arguments, config_text, load_config, setup_config
from .registry import TESTERS, TRAINERS

Run = Callable[[Config, str], None]


def run_training(cfg: Config, text: str) -> None:
    """Build the trainer of a loaded config, and train.

    Args:
        cfg: From :func:`load_config`.
        text: From :func:`config_text`, taken before anything was filled in.
    """
    cfg = setup_config(cfg)
    TRAINERS.build({"type": cfg.train.type, "cfg": cfg, "config_text": text}).train()


def run_test(cfg: Config, text: str) -> None:
    """Build the tester of a loaded config, and test; ``text`` is not used.

    Raises:
        KeyError: If the config has no ``test``.
    """
    if "test" not in cfg:
        raise KeyError("the config lacks test, a dict with the type of a tester")
    TESTERS.build(dict(cfg=setup_config(cfg), **cfg.test)).test()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _worker(rank: int, world_size: int, url: str, run: Run, cfg: Config, text: str) -> None:
    imports = cfg.get("custom_imports")
    if imports:  # a spawned process has not read the config file
        import_modules_from_strings(**imports)
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "nccl"
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, init_method=url, world_size=world_size, rank=rank)
    try:
        run(cfg, text)
    finally:
        dist.destroy_process_group()


def launch(cfg: Config, num_gpus: int = 1, run: Run = run_training) -> None:
    """Run in this process, or in ``num_gpus`` spawned ones (CPU ones with gloo, without CUDA).

    Raises:
        ValueError: If there are not so many GPUs.
    """
    text = config_text(cfg)
    if num_gpus <= 1:
        run(cfg, text)
        return
    if torch.cuda.is_available() and num_gpus > torch.cuda.device_count():
        raise ValueError(f"--num-gpus is {num_gpus}, but there are {torch.cuda.device_count()}")
    arguments = (num_gpus, f"tcp://127.0.0.1:{_free_port()}", run, cfg, text)
    try:
        mp.spawn(_worker, nprocs=num_gpus, args=arguments)
    except mp.ProcessExitedException as error:  # the process has said why
        raise SystemExit(error.exit_code or 1) from None


def train(args: argparse.Namespace, run: Run = run_training) -> None:
    """Train, or do another ``run``, as the command line says.

    Raises:
        ValueError: For a mistake in config, data or checkpoint.
        OSError: For a file that cannot be read or written.
    """
    os.environ["DOS_HOST"] = "minihost"  # where the plugin registers, also in spawned processes
    if "" not in sys.path:  # configs may import modules from the working folder
        sys.path.insert(0, os.getcwd())
    try:
        launch(load_config(args.config_file, args.options), args.num_gpus, run)
    except (KeyError, TypeError, NotImplementedError, ImportError) as error:
        cause = error.__cause__ if isinstance(error, ImportError) else None
        because = f"; because of {one_line(cause)}" if cause else ""
        raise ValueError(one_line(error) + because) from error


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``python -m dos_plugin.minihost``.

    Raises:
        SystemExit: With status 1 and a short message on a mistake in config, data or checkpoint.
    """
    parser = argparse.ArgumentParser(
        prog="python -m dos_plugin.minihost",
        description="Train a config of the host without the host (embedded stand-in, CPU or CUDA).",
    )
    add_arguments(parser)
    parser.add_argument(
        "--test",
        action="store_true",
        help="test the checkpoint in weight: the host's tools/test.py",
    )
    args = parser.parse_args(argv)
    try:
        train(args, run_test if args.test else run_training)
    except (ValueError, OSError) as error:
        if os.environ.get("DOS_TRACEBACK"):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        print("(DOS_TRACEBACK=1 shows where it came from)", file=sys.stderr)
        raise SystemExit(1) from None
