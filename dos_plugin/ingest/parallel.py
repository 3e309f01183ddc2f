"""A function over many scan files, in this process or in several, with a progress bar."""

import functools
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

FILES_PER_WORKER = 16  # fewer are read sooner than a process starts

_stopped: Callable[[], bool] | None = None  # of a worker


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
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, context, _start, (stop,))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise OSError(
            "a worker process died, out of memory perhaps: try fewer --workers"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _start(stop: Any) -> None:
    global _stopped
    _stopped = stop.is_set
    # Ctrl-C goes to all processes; the first one stops the others, between two scans
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _collect(function: Callable[[Any], Iterable[Any]], job: Any) -> list[Any]:
    results = []
    for result in function(job):
        results.append(result)
        if _stopped is not None and _stopped():
            break
    return results


def run_all(
    pool: Executor | None,
    function: Callable[[Any], Iterable[Any]],
    jobs: Sequence,
    what: str,
    progress: bool,
) -> Iterator[tuple[Any, Any]]:
    """Each job with each of its results, in the order of the jobs.

    The bar counts jobs; where they have several results, also these.
    """
    from tqdm import tqdm

    if pool is None:
        results: Iterable[Iterable[Any]] = map(function, jobs)
    else:
        results = pool.map(functools.partial(_collect, function), jobs, chunksize=4)
    scans = 0
    with tqdm(desc=what, total=len(jobs), unit="file", disable=not progress) as bar:
        for done, (job, found) in enumerate(zip(jobs, results), 1):
            for result in found:
                scans += 1
                yield job, result
                if scans > done:
                    bar.set_postfix(scans=scans)
            bar.update()
