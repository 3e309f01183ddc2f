"""The command ``python -m dos_plugin.minihost``: one process, or several that share the batches."""

import os
import socket
import sys
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from .config import argument_parser, config_text, load_config, setup_config
from .registry import TRAINERS
from .trainer import short_message


def run_training(cfg: Config, text: str) -> None:
    """Build the trainer of a loaded config, and train.

    Args:
        cfg: From :func:`load_config`.
        text: From :func:`config_text`, taken before anything was filled in.
    """
    cfg = setup_config(cfg)
    TRAINERS.build({"type": cfg.train.type, "cfg": cfg, "config_text": text}).train()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _worker(
    local_rank: int, per_machine: int, world_size: int, machine: int, url: str, cfg, text: str
) -> None:
    imports = cfg.get("custom_imports")
    if imports:  # a spawned process has not read the config file
        import_modules_from_strings(**imports)
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "nccl"
        torch.cuda.set_device(local_rank)
    rank = machine * per_machine + local_rank
    dist.init_process_group(backend, init_method=url, world_size=world_size, rank=rank)
    try:
        run_training(cfg, text)
    finally:
        dist.destroy_process_group()


def launch(
    cfg: Config,
    num_gpus: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
) -> None:
    """Train in this process, or spawn ``num_gpus`` processes (CPU ones with gloo, without CUDA).

    Raises:
        ValueError: If the numbers do not fit the machine, or ``dist_url`` is missing.
    """
    text = config_text(cfg)
    world_size = num_machines * num_gpus
    if world_size <= 1:
        run_training(cfg, text)
        return
    if torch.cuda.is_available() and num_gpus > torch.cuda.device_count():
        raise ValueError(f"--num-gpus is {num_gpus}, but there are {torch.cuda.device_count()}")
    if not 0 <= machine_rank < num_machines:
        raise ValueError(f"--machine-rank must be in [0, {num_machines}), got {machine_rank}")
    if dist_url == "auto":
        if num_machines > 1:
            raise ValueError("--dist-url must be given when there are several machines")
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    arguments = (num_gpus, world_size, machine_rank, dist_url, cfg, text)
    try:
        mp.spawn(_worker, nprocs=num_gpus, args=arguments)
    except mp.ProcessExitedException as error:  # the process has said why
        raise SystemExit(error.exit_code or 1) from None


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and train.

    Raises:
        SystemExit: With status 1 and a short message on a mistake in config, data or checkpoint.
    """
    args = argument_parser().parse_args(argv)
    os.environ["DOS_HOST"] = "minihost"  # where the plugin registers, also in spawned processes
    if "" not in sys.path:  # configs may import modules from the working folder
        sys.path.insert(0, os.getcwd())
    try:
        cfg = load_config(args.config_file, args.options)
        launch(cfg, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url)
    except (ValueError, KeyError, TypeError, NotImplementedError, OSError, ImportError) as error:
        if os.environ.get("DOS_DEBUG"):
            raise
        chain = [short_message(error)]
        if isinstance(error, ImportError) and error.__cause__ is not None:
            chain.append(f"because of {short_message(error.__cause__)}")
        print("error: " + "; ".join(chain), file=sys.stderr)
        print("(DOS_DEBUG=1 shows the traceback)", file=sys.stderr)
        raise SystemExit(1) from None
