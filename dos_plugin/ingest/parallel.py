"""A function over many scan files, in this process or in several, with a progress bar."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

FILES_PER_WORKER = 16  # fewer are read sooner than a process starts


def count_workers(wanted: int | None, files: int) -> int:
    """Number of processes for some files; None chooses."""
    if wanted is None:
        wanted = min(len(os.sched_getaffinity(0)), files // FILES_PER_WORKER)
    return max(1, min(wanted, files))


@contextmanager
def open_pool(workers: int) -> Iterator[Executor | None]:
    """Processes to run in; None: this one is enough.

    Raises:
        OSError: one of them died.
    """
    if workers == 1:
        yield None
        return
    # Ctrl-C goes to all processes; this one stops the others
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise OSError(
            "a worker process died, out of memory perhaps: try fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def run_all(
    pool: Executor | None, function: Callable, jobs: Sequence, what: str, progress: bool
) -> Iterator[tuple[Any, Any]]:
    """Each job with its result, in the order of the jobs."""
    from tqdm import tqdm

    results = map(function, jobs) if pool is None else pool.map(function, jobs, chunksize=4)
    yield from tqdm(zip(jobs, results), what, len(jobs), unit="scan", disable=not progress)
