"""The detection metric of nuScenes, written from its protocol (arXiv 1903.11027, section 3.1).

Average precision by distance of centres seen from above, the errors of what was found, and their
sum, the NDS. Attributes are not predicted, so that their error is 1. A submission's figures come
from nuscenes-devkit, which filters bicycles in racks, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dos_plugin.detection.native.boxes import LENGTH, VX, YAW

DISTANCES = (0.5, 1.0, 2.0, 4.0)  # metres
MATCHED = 2.0  # metres, for the errors
MIN_RECALL = MIN_PRECISION = 0.1
MOST = 500  # boxes of a scan
RANGES = {
    "car": 50.0, "truck": 50.0, "bus": 50.0, "trailer": 50.0, "construction_vehicle": 50.0,
    "pedestrian": 40.0, "motorcycle": 40.0, "bicycle": 40.0, "traffic_cone": 30.0, "barrier": 30.0,
}  # fmt: skip
ERRORS = ("ATE", "ASE", "AOE", "AVE", "AAE")
# Errors that mean nothing for a class.
LEFT_OUT = {"traffic_cone": ("AOE", "AVE", "AAE"), "barrier": ("AVE", "AAE")}
PERIODS = {"barrier": np.pi}
RECALLS = np.linspace(0, 1, 101)
FIRST = round(100 * MIN_RECALL) + 1


class Scan(NamedTuple):
    """Boxes of a scan, predicted (with scores) or labelled (scores mean nothing)."""

    boxes: np.ndarray  # (K, 9)
    scores: np.ndarray  # (K,)
    labels: np.ndarray  # (K,), -1 counts for nothing


class _Rows(NamedTuple):
    """Boxes of one class in all scans."""

    boxes: np.ndarray
    scores: np.ndarray
    scan: np.ndarray


def nuscenes_metrics(
    predicted: Sequence[Scan],
    labelled: Sequence[Scan],
    names: Sequence[str],
    ranges: Mapping[str, float] | None = None,
    centres: np.ndarray | None = None,
) -> dict[str, float]:
    """``mAP``, ``NDS``, ``AP/<class>``, ``mATE`` and the other errors, ``ATE/<class>``.

    Args:
        predicted: One a scan.
        labelled: One a scan.
        names: Classes.
        ranges: Metres around the vehicle by class; None for those of nuScenes. Classes that it
            does not name have no end.
        centres: (S, 2) place of the vehicle in each scan; None for the LiDAR's own.

    Raises:
        ValueError: If the scans are not as many.
    """
    if len(predicted) != len(labelled):
        raise ValueError(f"{len(predicted)} scans predicted, {len(labelled)} labelled")
    ranges = RANGES if ranges is None else ranges
    middle = np.zeros((len(labelled), 2)) if centres is None else np.asarray(centres)
    predicted = [_best(scan) for scan in predicted]
    result: dict[str, float] = {}
    errors: dict[str, list[float]] = {error: [] for error in ERRORS}
    for number, name in enumerate(names):
        reach = ranges.get(name, np.inf)
        found, true = (_rows(s, number, middle, reach) for s in (predicted, labelled))
        precisions = []
        for distance in DISTANCES:
            matches = _match(found, true, distance)
            precisions.append(_average_precision(matches, len(true.boxes)))
            if distance == MATCHED:
                of_class = _errors(matches, found, true, name)
        result[f"AP/{name}"] = float(np.mean(precisions))
        for error in ERRORS:
            if error not in LEFT_OUT.get(name, ()):
                result[f"{error}/{name}"] = of_class[error]
                errors[error].append(of_class[error])
    result["mAP"] = float(np.mean([result[f"AP/{name}"] for name in names]))
    means = {f"m{error}": float(np.mean(values or [1.0])) for error, values in errors.items()}
    result |= means
    good = sum(1 - min(1.0, value) for value in means.values())
    result["NDS"] = (5 * result["mAP"] + good) / 10
    return result


def _best(scan: Scan) -> Scan:
    rows = np.argsort(-scan.scores, kind="stable")[:MOST]
    return Scan(scan.boxes[rows], scan.scores[rows], scan.labels[rows])


def _rows(scans: Sequence[Scan], label: int, middle: np.ndarray, reach: float) -> _Rows:
    boxes, scores, which = [np.zeros((0, 9))], [np.zeros(0)], [np.zeros(0, int)]
    for number, scan in enumerate(scans):
        away = np.linalg.norm(scan.boxes[:, :2] - middle[number], axis=1)
        own = (scan.labels == label) & (away < reach)
        boxes.append(scan.boxes[own])
        scores.append(scan.scores[own])
        which.append(np.full(own.sum(), number))
    return _Rows(np.concatenate(boxes), np.concatenate(scores), np.concatenate(which))


class _Matches(NamedTuple):
    order: np.ndarray  # (P,) predictions, best first
    partner: np.ndarray  # (P,) row of the labelled box, -1 for none


def _match(found: _Rows, true: _Rows, distance: float) -> _Matches:
    """Best first, each prediction takes the nearest box of its scan that is not taken."""
    order = np.argsort(-found.scores, kind="stable")
    rows = {s: np.flatnonzero(true.scan == s) for s in np.unique(true.scan)}
    taken = np.zeros(len(true.boxes), bool)
    partner = np.full(len(order), -1)
    for place, one in enumerate(order):
        free = rows.get(found.scan[one], np.zeros(0, int))
        free = free[~taken[free]]
        if len(free):
            away = np.hypot(*(true.boxes[free, :2] - found.boxes[one, :2]).T)
            nearest = int(away.argmin())
            if away[nearest] < distance:
                partner[place] = free[nearest]
                taken[free[nearest]] = True
    return _Matches(order, partner)


def _recall_and_precision(matches: _Matches, total: int) -> tuple[np.ndarray, np.ndarray]:
    right = np.cumsum(matches.partner >= 0)
    return right / total, right / np.arange(1, len(right) + 1)


def _average_precision(matches: _Matches, total: int) -> float:
    if not total or not (matches.partner >= 0).any():
        return 0.0
    recall, precision = _recall_and_precision(matches, total)
    curve = np.interp(RECALLS, recall, precision, right=0)[FIRST:]
    return float(np.clip(curve - MIN_PRECISION, 0, None).mean() / (1 - MIN_PRECISION))


def _errors(matches: _Matches, found: _Rows, true: _Rows, name: str) -> dict[str, float]:
    """Errors of what was found, averaged over the recalls that were reached."""
    hit = matches.partner >= 0
    nothing = dict.fromkeys(ERRORS, 1.0)
    if not hit.any():
        return nothing
    recall, _ = _recall_and_precision(matches, len(true.boxes))
    scores = found.scores[matches.order]
    confidence = np.interp(RECALLS, recall, scores, right=0)
    reached = np.flatnonzero(confidence)
    last = int(reached[-1]) if len(reached) else 0
    if last < FIRST:
        return nothing
    a, b = found.boxes[matches.order[hit]], true.boxes[matches.partner[hit]]
    turned = _angle(a[:, YAW] - b[:, YAW], PERIODS.get(name, 2 * np.pi))
    values = {
        "ATE": np.hypot(*(a[:, :2] - b[:, :2]).T),
        "ASE": 1 - _aligned_iou(a[:, LENGTH:YAW], b[:, LENGTH:YAW]),
        "AOE": turned,
        "AVE": np.hypot(*(a[:, VX:] - b[:, VX:]).T),
    }
    own = scores[hit][::-1]
    curves = {
        error: np.interp(confidence[::-1], own, _mean_so_far(value)[::-1])[::-1]
        for error, value in values.items()
    }
    return nothing | {e: float(curve[FIRST : last + 1].mean()) for e, curve in curves.items()}


def _mean_so_far(values: np.ndarray) -> np.ndarray:
    """Running mean over what is known; 1 if nothing is."""
    known = np.isfinite(values)
    if not known.any():
        return np.ones(len(values))
    return np.nancumsum(np.where(known, values, 0)) / np.maximum(np.cumsum(known), 1)


def _angle(difference: np.ndarray, period: float) -> np.ndarray:
    return np.abs((difference + period / 2) % period - period / 2)


def _aligned_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    both = np.minimum(a, b).prod(1)
    return both / (a.prod(1) + b.prod(1) - both)
