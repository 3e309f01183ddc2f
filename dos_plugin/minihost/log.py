"""Logging: lines go to the console and to ``train.log``, and never through a progress bar.

A line may be marked by ``extra=FILE_ONLY`` (long texts, tracebacks) or ``extra=PER_STEP``: the
console shows none of these while a progress bar shows the same numbers, else one every
``STEP_SECONDS``. ``train.log`` has all.
"""

import logging
import sys
import time
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

FILE_ONLY = {"file_only": True}
PER_STEP = {"per_step": True}
STEP_SECONDS = 10.0

_NAME = "dos_plugin.minihost"
_FORMAT = logging.Formatter("[%(asctime)s %(levelname)s] %(message)s")


class _Console(logging.Handler):
    """Writes to the current ``sys.stderr``, above the progress bar if there is one."""

    bar: Any = None
    next_step = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "file_only", False):
            return
        if getattr(record, "per_step", False):
            if self.bar is not None or time.monotonic() < self.next_step:
                return
            self.next_step = time.monotonic() + STEP_SECONDS
        text = self.format(record)
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


def get_logger() -> logging.Logger:
    """The logger of the embedded host; console output is set up on the first call."""
    logger = logging.getLogger(_NAME)
    if not logger.handlers:
        console = _Console()
        console.setFormatter(_FORMAT)
        logger.addHandler(console)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger


def start_buffer() -> None:
    """Keep the lines from now on until :func:`open_log_file` says where they go.

    A run that fails while it is being built therefore leaves the log of an earlier run alone.
    """
    close_log_file()
    get_logger().addHandler(MemoryHandler(capacity=1_000_000, flushLevel=logging.CRITICAL + 1))


def open_log_file(path: Path, append: bool) -> None:
    """Write the buffered lines and all later ones to ``path``; nothing if that is done already."""
    logger = get_logger()
    if any(isinstance(handler, logging.FileHandler) for handler in logger.handlers):
        return
    handler = logging.FileHandler(path, mode="a" if append else "w", encoding="utf-8")
    handler.setFormatter(_FORMAT)
    for buffer in [h for h in logger.handlers if isinstance(h, MemoryHandler)]:
        buffer.setTarget(handler)
        buffer.flush()
        logger.removeHandler(buffer)
        buffer.close()
    logger.addHandler(handler)


def close_log_file() -> None:
    """Detach log file and buffer, so that a second run of this process starts clean."""
    logger = get_logger()
    for handler in list(logger.handlers):
        if isinstance(handler, (logging.FileHandler, MemoryHandler)):
            logger.removeHandler(handler)
            handler.close()


def set_progress_bar(bar: Any) -> None:
    """Tell the console about the tqdm bar it has to write around (None: there is none)."""
    for handler in get_logger().handlers:
        if isinstance(handler, _Console):
            handler.bar = bar
