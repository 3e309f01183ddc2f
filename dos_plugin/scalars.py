"""Read the scalars that a run logged into TensorBoard event files.

An event file is a row of records: length (8 bytes), its checksum (4), a serialised Event, its
checksum (4). Only the protobuf classes of tensorboardX are needed, no TensorBoard.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """A logged scalar over its steps, both (S,)."""

    step: np.ndarray
    value: np.ndarray


def read_scalars(folder: str | Path) -> dict[str, Curve]:
    """All scalars in the event files of a folder, by tag, in the order of their steps.

    Where a run was resumed and logged a step again, the later value counts.

    Args:
        folder: the run's folder; files called ``events.out.tfevents.*`` in it and below are read.

    Returns:
        Curves by tag; empty if there are no event files.
    """
    found: dict[str, dict[int, float]] = {}
    files = Path(folder).rglob("events.out.tfevents.*")
    for file in sorted(files, key=lambda path: path.stat().st_mtime):
        for tag, step, value in _scalars(file):
            found.setdefault(tag, {})[step] = value
    return {
        tag: Curve(np.array(sorted(values)), np.array([values[s] for s in sorted(values)]))
        for tag, values in found.items()
    }


def smooth(value: np.ndarray, window: int) -> np.ndarray:
    """Mean over a centred window, which shrinks at both ends."""
    total = np.concatenate([[0.0], np.cumsum(value, dtype=np.float64)])
    index = np.arange(len(value))
    low = np.maximum(index - window // 2, 0)
    high = np.minimum(index + window // 2 + 1, len(value))
    return (total[high] - total[low]) / (high - low)


def _scalars(file: Path) -> Iterator[tuple[str, int, float]]:
    from tensorboardX.proto.event_pb2 import Event

    for record in _records(file.read_bytes()):
        event = Event.FromString(record)
        for value in event.summary.value:
            if value.HasField("simple_value"):
                yield value.tag, event.step, value.simple_value


def _records(content: bytes) -> Iterator[bytes]:
    """Payloads of the records; a record cut off by an interrupted run ends the file."""
    start = 0
    while start + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        payload = content[start + 12 : start + 12 + length]
        if len(payload) < length:
            return
        yield payload
        start += 16 + length
