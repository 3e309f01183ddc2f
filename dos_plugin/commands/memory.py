"""Peak memory of this process and all its children together."""

from __future__ import annotations

import os
import resource
import sys
import threading
from pathlib import Path


class PeakMemory:
    """Context that samples the memory of the process tree; ``mb`` is the peak in MiB.

    On Linux it is the sum of the proportional set sizes, in which pages that several processes
    share (forked data-loader workers) count once. Elsewhere it is the largest resident set of
    this process plus that of its largest finished child.

    Args:
        interval: seconds between two samples; reading the sizes holds up the sampled processes.
    """

    def __init__(self, interval: float = 3.0) -> None:
        self.interval = interval
        self._peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    @property
    def mb(self) -> float:
        """Peak so far, MiB."""
        return (self._peak or _largest_resident()) / 2**20

    def _watch(self) -> None:
        while not self._stop.wait(self.interval):
            self._sample()

    def _sample(self) -> None:
        self._peak = max(self._peak, sum(_proportional(pid) for pid in process_tree(os.getpid())))


def process_tree(pid: int) -> list[int]:
    """The process and all its living descendants; itself alone where there is no /proc."""
    children: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children += [int(child) for child in file.read_text().split()]
        except OSError:
            continue  # the thread has ended since it was listed
    return [pid, *(other for child in children for other in process_tree(child))]


def _proportional(pid: int) -> int:
    """Proportional set size in bytes, 0 if the process is gone or the system has no such file."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _largest_resident() -> int:
    """Bytes; the system reports kilobytes, macOS bytes."""
    own, children = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return (own + children) * (1 if sys.platform == "darwin" else 1024)
