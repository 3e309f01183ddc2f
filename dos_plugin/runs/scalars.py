"""Read the scalars that a run logged into TensorBoard event files.

An event file is a row of records: length (8 bytes), its checksum (4), a serialised Event, its
checksum (4). Only the protobuf classes of tensorboardX are needed, no TensorBoard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Start of the names of what the hosts log at every step, from step 1 on.
BATCH = "train_batch/"


class Curve(NamedTuple):
    """A logged scalar over its steps, both (S,)."""

    step: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, points: Mapping[int, float]) -> Curve:
        """The curve of values by step."""
        steps = sorted(points)
        return cls(np.array(steps), np.array([points[step] for step in steps], dtype=np.float64))


def read_events(folder: str | Path) -> tuple[dict[str, Curve], dict[Path, str]]:
    """All scalars in the event files of a folder, by tag, in the order of their steps.

    Where a later file, of a resumed run, begins a tag again, what earlier files have from that step
    on is left out, as TensorBoard does. Of a file that begins a training anew, at its first step,
    nothing earlier is taken.

    Args:
        folder: the run's folder; files called ``events.out.tfevents.*`` in it are read.

    Returns:
        Curves by tag, empty if there are no event files, and what is wrong by file.

    Raises:
        ModuleNotFoundError: if there are event files, but no tensorboardX.
    """
    found: dict[str, dict[int, float]] = {}
    wrong: dict[Path, str] = {}
    for file in sorted(Path(folder).glob("events.out.tfevents.*"), key=_age):
        begun: set[str] = set()
        try:
            for tag, step, value in _scalars(file):
                if tag not in begun:
                    if step <= 1 and tag.startswith(BATCH):
                        found = {name: found[name] for name in begun}
                    begun.add(tag)
                    earlier = found.get(tag, {})
                    found[tag] = {at: known for at, known in earlier.items() if at < step}
                found[tag][step] = value
        except (ValueError, OSError) as error:
            wrong[file] = str(error)
    return {tag: Curve.of(points) for tag, points in found.items()}, wrong


def _age(path: Path) -> tuple[int, float, str]:
    """For sorting event files: the second in their name, which copying keeps; else their own."""
    second = path.name.split(".")[3]
    return (int(second) if second.isdigit() else 0, path.stat().st_mtime, path.name)


def joined(first: Mapping[str, Curve], second: Mapping[str, Curve]) -> dict[str, Curve]:
    """Curves of two sources: the second counts, the first goes on before and after it."""
    curves = {**first, **second}
    for tag in first.keys() & second.keys():
        (step, value), known = first[tag], second[tag].step
        beyond = (step < known[0]) | (step > known[-1])
        points = dict(zip(step[beyond].tolist(), value[beyond].tolist()))
        points |= dict(zip(known.tolist(), second[tag].value.tolist()))
        curves[tag] = Curve.of(points)
    return curves


def smooth(value: np.ndarray, window: int) -> np.ndarray:
    """Mean over a centred window, which shrinks at both ends."""
    total = np.concatenate([[0.0], np.cumsum(value, dtype=np.float64)])
    index = np.arange(len(value))
    low = np.maximum(index - window // 2, 0)
    high = np.minimum(index + window // 2 + 1, len(value))
    return (total[high] - total[low]) / (high - low)


def _scalars(file: Path) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of every scalar.

    Raises:
        ValueError: after those before the damage, if the file is cut off or no event file.
    """
    from tensorboardX.proto.event_pb2 import Event

    for record in _records(file.read_bytes()):
        try:
            event = Event.FromString(record)
        except Exception as error:  # protobuf's DecodeError; its module moved between versions
            raise ValueError("a record is no event, what follows is left out") from error
        for value in event.summary.value:
            if value.HasField("simple_value"):
                yield value.tag, event.step, value.simple_value


def _records(content: bytes) -> Iterator[bytes]:
    """Payloads of the records; an interrupted run may leave the last one incomplete."""
    start = 0
    while start < len(content):
        length = int.from_bytes(content[start : start + 8], "little")
        if start + 16 + length > len(content):
            raise ValueError(f"cut off within a record, {len(content) - start} bytes are lost")
        yield content[start + 12 : start + 12 + length]
        start += 16 + length
