"""Peak memory of this process and all its children together."""

from __future__ import annotations

import threading

import psutil


class PeakMemory:
    """Context that samples the memory of the process tree; ``mb`` is the peak in MiB.

    It is the sum of the proportional set sizes, in which pages that several processes share
    (forked data-loader workers) count once; of the resident sets where the system has none.

    Args:
        interval: seconds between two samples; reading the sizes holds up the sampled processes.
    """

    def __init__(self, interval: float = 3.0) -> None:
        self.interval = interval
        self.mb = 0.0
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

    def _watch(self) -> None:
        while not self._stop.wait(self.interval):
            self._sample()

    def _sample(self) -> None:
        own = psutil.Process()
        sizes = [_size(process) for process in (own, *own.children(recursive=True))]
        self.mb = max(self.mb, sum(sizes) / 2**20)


def _size(process: psutil.Process) -> int:
    """Bytes; 0 if the process has ended since it was listed."""
    try:
        memory = process.memory_full_info()
    except psutil.Error:
        return 0
    return getattr(memory, "pss", memory.rss)
