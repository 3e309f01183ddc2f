"""Ranges of strengths, and the one divisor that brings those of all scans into [0, 1]."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

STEPS = (1.0, 255.0, 65535.0)  # usual upper ends
STRAY = 0.01  # share of strengths that may be above the divisor, as those of mirrors are
GAP = 10.0  # times as strong: another unit


@dataclass(frozen=True)
class Strengths:
    """Strengths of a scan.

    Attributes:
        points: how many.
        within: how many are at most each of :data:`STEPS`; no whole number counts for the first
            where there are others beyond it, such as bytes of a dark scan.
        high: 99 % are at most so strong.
        whole: all are whole numbers.
    """

    points: int
    within: tuple[int, ...]
    high: float
    whole: bool


def measure(values: np.ndarray) -> Strengths:
    """Look at strengths (N, 1), 0 or more."""
    within = [int((values <= step).sum()) for step in STEPS]
    whole = bool((values == np.round(values)).all())
    if whole and within[0] < values.size:
        within[0] = 0
    high = float(np.quantile(values, 1 - STRAY, method="lower"))
    return Strengths(values.size, tuple(within), high, whole)


def choose_scale(found: Sequence[Strengths]) -> float:
    """Divisor that brings nearly all strengths into [0, 1]: 1, 255, 65535, or what it takes.

    One divisor for all scans, because the same surface must give the same strength in each. Single
    huge values, which some sensors have, decide nothing.
    """
    points = sum(strengths.points for strengths in found)
    for place, step in enumerate(STEPS):
        above = points - sum(strengths.within[place] for strengths in found)
        if above <= max(STRAY * points, 1):
            return step
    return max(strengths.high for strengths in found)


def find_groups(found: Mapping[str, Strengths]) -> tuple[list[str], list[str]] | None:
    """Names of the scans of two units of strength, weak and strong; None if there is one unit."""
    telling = {n: s for n, s in found.items() if s.high > 1 or (s.high > 0 and not s.whole)}
    names = sorted(telling, key=lambda name: telling[name].high)
    for place in range(1, len(names)):
        weak, strong = telling[names[place - 1]].high, telling[names[place]].high
        if weak * GAP < strong and any(weak <= step < strong for step in STEPS):
            return names[:place], names[place:]
    return None
