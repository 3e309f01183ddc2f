"""Boxes of a scan in one convention, whatever program made them.

A box is a row of 7 or 9 numbers in the frame of the LiDAR: x, y, z of the geometric centre, length,
width, height (metres), yaw (radians, counter-clockwise from +x, of the length's direction), then,
where it is known, velocity in x and y (m/s).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dos_plugin.ingest.sources import stem_of
from dos_plugin.messages import some

# Objects of these names stand for "do not count here".
IGNORED = {"dontcare", "ignore"}


@dataclass(frozen=True)
class Boxes:
    """Boxes of one scan.

    Attributes:
        box: (K, 7) or (K, 9) float64, see above.
        label: K class names.
        score: (K,) float64 in [0, 1] or as the detector gives them; None of true boxes.
    """

    box: np.ndarray
    label: tuple[str, ...]
    score: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.box)

    def keep(self, which: np.ndarray) -> Boxes:
        """Those of a (K,) mask."""
        label = tuple(name for name, kept in zip(self.label, which) if kept)
        return Boxes(self.box[which], label, None if self.score is None else self.score[which])

    def above(self, score: float) -> Boxes:
        """Those of at least this score; all of true boxes."""
        return self if self.score is None else self.keep(self.score >= score)

    def counted(self) -> Boxes:
        """Without objects that stand for "ignore"."""
        return self.keep(np.array([n.lower() not in IGNORED for n in self.label], dtype=bool))


class Frame(NamedTuple):
    """Boxes of one scan and the names by which its scan goes, such as token and file."""

    names: tuple[str, ...]
    boxes: Boxes


def wrong(file: Any, key: str, value: Any, expected: str) -> ValueError:
    """An error that says where, what was there and what should have been."""
    text = " ".join(repr(value).split())
    text = text if len(text) <= 80 else text[:77] + "..."
    return ValueError(f"{file}: {key}: got {text}, expected {expected}")


def make_boxes(
    file: Any, key: str, box: Any, label: Sequence[str], score: Any | None = None
) -> Boxes:
    """Boxes out of what a file holds.

    Args:
        file: for the errors.
        key: where in the file, for the errors.
        box: (K, 7 or more), of which 9 columns are taken where there are so many; ``[]`` is none.
        label: K names.
        score: K numbers.

    Raises:
        ValueError: numbers of rows or columns do not fit, or values are no numbers (velocities,
            which may be unknown, apart).
    """
    try:
        rows = as_array(box)
    except (TypeError, ValueError):
        raise wrong(file, key, box, "rows of numbers") from None
    if not rows.size:
        rows = np.zeros((0, 7))
    if rows.ndim != 2 or rows.shape[1] < 7:
        expected = "(K, 7) or (K, 9): x, y, z, length, width, height, yaw, velocity"
        raise wrong(file, f"{key}, shape", rows.shape, expected)
    rows = rows[:, : 9 if rows.shape[1] >= 9 else 7]
    if len(label) != len(rows):
        raise wrong(file, f"labels of {key}", len(label), f"{len(rows)}, one a box")
    bad = ~np.isfinite(rows[:, :7]).all(1)
    if bad.any():
        raise wrong(file, f"{key}, box {bad.argmax()}", rows[bad.argmax()].tolist(), "numbers")
    small = (rows[:, 3:6] < 0).any(1)
    if small.any():
        row = int(small.argmax())
        found = rows[row, 3:6].tolist()
        raise wrong(file, f"{key}, box {row}, lengths", found, "0 m or more")
    values = None
    if score is not None:
        try:
            values = as_array(score).reshape(-1)
        except (TypeError, ValueError):
            raise wrong(file, f"scores of {key}", score, "numbers") from None
        if len(values) != len(rows):
            raise wrong(file, f"scores of {key}", len(values), f"{len(rows)}, one a box")
        if not np.isfinite(values).all():
            raise wrong(file, f"scores of {key}", values[~np.isfinite(values)][0], "numbers")
    return Boxes(rows, tuple(str(name) for name in label), values)


def as_array(values: Any) -> np.ndarray:
    """Float64 of lists, arrays or tensors of any type of numbers, a copy.

    Raises:
        TypeError, ValueError: they are no numbers, or lists of different lengths.
    """
    return np.array(getattr(values, "tolist", lambda: values)(), dtype=np.float64)


def frame_names(*names: Any) -> tuple[str, ...]:
    """Names of a scan as they are and, of files, their stem too; without those that are not set."""
    found: dict[str, None] = {}
    for name in names:
        if name is None or name == "":
            continue
        text = str(name)
        found[text] = None
        found[bare(text)] = None
    return tuple(found)


def bare(name: str) -> str:
    """Name of a scan file without folders and suffix."""
    return stem_of(Path(name.replace("\\", "/").rsplit("/", 1)[-1]))


def find_frame(frames: Iterable[Frame], wanted: str, file: Any) -> Frame:
    """The frame of a scan.

    Args:
        frames: of a file.
        wanted: one of its names, or a scan file of that name.
        file: for the error.

    Raises:
        ValueError: there is none of that name, or there are several.
    """
    frames = list(frames)
    for name in dict.fromkeys((wanted, bare(wanted))):
        found = [frame for frame in frames if name in frame.names]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{file}: {len(found)} scans are called {name!r}, expected one")
    there = some([frame.names[0] for frame in frames if frame.names], 3) or "none"
    raise ValueError(
        f"{file}: no boxes of {wanted!r} among those of {len(frames)} scans: {there}; name one of "
        "them with --scan-id"
    )


def moved(box: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Boxes (K, 7 or 9) in another frame, of a (4, 4) matrix into it; yaw is of the heading's
    projection on x and y."""
    box = np.array(box, dtype=np.float64)
    turn = matrix[:3, :3]
    heading = np.stack([np.cos(box[:, 6]), np.sin(box[:, 6]), np.zeros(len(box))], 1) @ turn.T
    box[:, :3] = box[:, :3] @ turn.T + matrix[:3, 3]
    box[:, 6] = np.arctan2(heading[:, 1], heading[:, 0])
    if box.shape[1] == 9:
        speed = np.concatenate([box[:, 7:], np.zeros((len(box), 1))], 1) @ turn.T
        box[:, 7:] = speed[:, :2]
    return box
