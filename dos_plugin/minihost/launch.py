"""The command ``python -m dos_plugin.minihost``: one process, or several that share the batches."""

import argparse
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from dos_plugin.messages import one_line

from .config import add_arguments, config_text, load_config, setup_config
from .registry import TESTERS, TRAINERS

Run = Callable[[Config, str], None]

LOOPBACK = "127.0.0.1"
FIRST_ERROR = "first error"  # key in the store of the ranks
PATIENCE = 30.0  # seconds that the other ranks get when one has failed, before they are killed
INTERRUPTED = 128 + signal.SIGINT  # what a shell reports for a program that Ctrl-C ended
MISTAKES = (ValueError, OSError, KeyError, TypeError, NotImplementedError, ImportError)


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


def _told(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, ImportError) else None
    return one_line(error) + (f"; because of {one_line(cause)}" if cause else "")


def _share_cores(ranks: int) -> None:
    """This rank's part of the threads, unless OMP_NUM_THREADS says how many.

    With more threads than cores they spin at each other's barriers, which takes several times as
    long, most of all where something else runs, too.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks))


def _worker(rank: int, world_size: int, port: int, run: Run, cfg: Config, text: str) -> None:
    store = dist.TCPStore(LOOPBACK, port, is_master=False)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A job that a script put in the background ignores SIGINT, by which torch has a rank end
        # with its parent.
        mp._prctl_pr_set_pdeathsig(signal.SIGTERM)  # type: ignore[attr-defined]
    _share_cores(world_size)
    try:
        imports = cfg.get("custom_imports")
        if imports:  # a spawned process has not read the config file
            import_modules_from_strings(**imports)
        backend = "gloo"
        if torch.cuda.is_available():
            backend = "nccl"
            torch.cuda.set_device(rank)
        dist.init_process_group(backend, store=store, world_size=world_size, rank=rank)
        run(cfg, text)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        said = f"rank {rank}: {_told(error)}\n"
        if os.environ.get("DOS_TRACEBACK") or not isinstance(error, MISTAKES):
            said += traceback.format_exc()
        # The parent says the first one; those of ranks that lost it follow.
        store.compare_set(FIRST_ERROR, "", said)
        raise SystemExit(1) from None
    dist.destroy_process_group()  # not after a failure: the others may never come to it


def launch(cfg: Config, num_gpus: int = 1, run: Run = run_training) -> None:
    """Run in this process, or in ``num_gpus`` spawned ones (CPU ones with gloo, without CUDA).

    A rank that fails ends the others: by SIGTERM, and by SIGKILL after :data:`PATIENCE` seconds.
    A SIGTERM or SIGUSR1 that this process gets goes on to all ranks.

    Raises:
        ValueError: If there are not so many GPUs, or a rank met an error; names the rank.
        SystemExit: If a rank ended otherwise, after a line that says which and how: with its own
            exit status, or 128 and the number of the signal that ended it.
    """
    text = config_text(cfg)
    if num_gpus <= 1:
        run(cfg, text)
        return
    if torch.cuda.is_available() and num_gpus > torch.cuda.device_count():
        raise ValueError(f"--num-gpus is {num_gpus}, but there are {torch.cuda.device_count()}")
    # The meeting place of the ranks. Its port is chosen by binding it, here: no other training can
    # come in between.
    store = dist.TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False)
    arguments = (num_gpus, store.port, run, cfg, text)
    ranks = mp.start_processes(
        _worker, arguments, num_gpus, join=False, start_method="spawn"
    ).processes
    failed = wait_for_ranks(ranks)
    if failed is None:
        return
    status = ranks[failed].exitcode
    if status == 1 and store.check([FIRST_ERROR]):
        said, _, where = store.get(FIRST_ERROR).decode().partition("\n")
        print(where, end="", file=sys.stderr)
        raise ValueError(said)
    print(f"rank {failed} {_ending(status)}; the other ranks are stopped", file=sys.stderr)
    raise SystemExit(status if status > 0 else 128 - status)


def wait_for_ranks(ranks: Sequence[BaseProcess]) -> int | None:
    """Wait until all ranks have ended; once one has failed, stop the others.

    Returns:
        The rank that failed, None if none did.

    Raises:
        SystemExit: With status 130 on Ctrl-C.
    """
    running: dict[Any, int] = {process.sentinel: rank for rank, process in enumerate(ranks)}
    failed: list[int] = []
    with _pass_on_signals(ranks):
        try:
            while running and not failed:
                for sentinel in wait(list(running)):
                    rank = running.pop(sentinel)
                    ranks[rank].join()
                    if ranks[rank].exitcode:
                        failed.append(rank)
        except KeyboardInterrupt:  # a terminal sends it to the ranks, too
            _join(ranks, PATIENCE)
            raise SystemExit(INTERRUPTED) from None
        finally:
            _stop(ranks)
    # If several have ended by now, those with status 1 most likely missed the others.
    codes = {rank: ranks[rank].exitcode or 0 for rank in failed}
    return min(failed, key=lambda rank: (codes[rank] > 0, codes[rank] == 1, rank), default=None)


def _stop(ranks: Sequence[BaseProcess]) -> None:
    for process in ranks:
        process.terminate()
    _join(ranks, PATIENCE)
    for process in ranks:  # within a collective, Python's handlers of signals are not called
        process.kill()
        process.join()


def _join(ranks: Sequence[BaseProcess], seconds: float) -> None:
    end = time.monotonic() + seconds
    for process in ranks:
        process.join(max(0.0, end - time.monotonic()))


@contextmanager
def _pass_on_signals(ranks: Sequence[BaseProcess]) -> Iterator[None]:
    """A job scheduler may tell this process alone; the ranks know what to save."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, _frame: object) -> None:
        for process in ranks:
            if process.is_alive() and process.pid:
                os.kill(process.pid, number)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    names = {number.value: number.name for number in signal.Signals}
    memory = " (is there enough memory?)" if -status == signal.SIGKILL else ""
    return f"was ended by {names.get(-status, f'signal {-status}')}{memory}"


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
        raise ValueError(_told(error)) from error


EXAMPLES = """examples:
  python -m dos_plugin.minihost --config-file configs/dos/semseg-dos-v1m1-9a-demo-lin.py
  python -m dos_plugin.minihost --num-gpus 2 --config-file exp/dos/mine/config.py \\
      --options resume=True weight=exp/dos/mine/model/model_last.pth"""


def make_parser() -> argparse.ArgumentParser:
    """The options of ``python -m dos_plugin.minihost``."""
    parser = argparse.ArgumentParser(
        prog="python -m dos_plugin.minihost",
        description="Train a config of the host without the host (embedded stand-in, CPU or CUDA).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument(
        "--test",
        action="store_true",
        help="test the checkpoint in weight: the host's tools/test.py",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``python -m dos_plugin.minihost``.

    Raises:
        SystemExit: With status 1 and a short message on a mistake in config, data or checkpoint.
    """
    args = make_parser().parse_args(argv)
    try:
        train(args, run_test if args.test else run_training)
    except (ValueError, OSError) as error:
        if os.environ.get("DOS_TRACEBACK"):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        print("(DOS_TRACEBACK=1 shows where it came from)", file=sys.stderr)
        raise SystemExit(1) from None
