"""Several processes under a watchdog: those that wait for each other for ever fail a test."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch.distributed as dist


def run_ranks(worker: Callable, world: int, folder: Path, *args: object, seconds: float) -> None:
    """Run ``worker(*args)`` in so many processes of a gloo group; fail unless all end in time.

    The processes are forked by one server, which imports the package once for all.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dos_plugin.register"])
    processes = [
        context.Process(target=_join, args=(rank, world, str(folder / "init"), worker, args))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    running = {process.sentinel: rank for rank, process in enumerate(processes)}
    end = time.monotonic() + seconds
    try:
        while running:
            ready = wait(list(running), timeout=max(0.0, end - time.monotonic()))
            if not ready:
                pytest.fail(f"ranks {sorted(running.values())} hang after {seconds} seconds")
            for sentinel in ready:
                rank = running.pop(sentinel)
                processes[rank].join()
                if processes[rank].exitcode:
                    pytest.fail(f"rank {rank} ended with exit code {processes[rank].exitcode}")
    finally:
        for process in processes:
            process.kill()
            process.join()


def _join(rank: int, world: int, file: str, worker: Callable, args: tuple) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    worker(*args)
    dist.destroy_process_group()
