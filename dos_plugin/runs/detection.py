"""What the evaluation of a detector leaves in a folder: scores by class, pictures of boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The nuScenes devkit's file, which MMDetection3D and OpenPCDet put some folders down, and what
# dos-plugin boxes writes.
SUMMARY = "metrics_summary.json"
PICTURES = "boxes*.png"
# Folders from the run's own one down to the summary, at most.
DEPTH = 7


@dataclass(frozen=True)
class Scores:
    """Scores of the nuScenes devkit.

    Attributes:
        path: the file.
        mean_ap: mAP, 0 to 1.
        nd_score: nuScenes detection score, 0 to 1; None if the file has none.
        class_ap: AP by class, 0 to 1, falling; NaN of a class that was not evaluated comes last.
        errors: mean true positive errors by name (trans_err in metres, scale_err as 1 - IoU,
            orient_err in radians, vel_err in m/s, attr_err as 1 - accuracy).
    """

    path: Path
    mean_ap: float
    nd_score: float | None
    class_ap: Mapping[str, float]
    errors: Mapping[str, float] = field(default_factory=dict)


def is_detection(folder: Path) -> bool:
    """Whether a folder holds scores of the devkit, or pictures of boxes."""
    return find_summary(folder) is not None or any(folder.glob(PICTURES))


def find_summary(folder: Path) -> Path | None:
    """The newest summary in a folder or below; None if there is none."""
    patterns = ["/".join([*["*"] * depth, SUMMARY]) for depth in range(DEPTH + 1)]
    found = [path for pattern in patterns for path in folder.glob(pattern)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def read_scores(path: Path) -> Scores:
    """Scores out of a summary.

    Raises:
        ValueError: it is no summary of the devkit; names the key.
    """
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: no JSON, or cut off ({error})") from None
    if not isinstance(content, dict) or not _is_number(content.get("mean_ap")):
        found = content.get("mean_ap") if isinstance(content, dict) else content
        raise ValueError(f"{path}: mean_ap: got {found!r}, expected a number of 0 to 1")
    by_class = content.get("mean_dist_aps")
    if not isinstance(by_class, dict) or not all(map(_is_number, by_class.values())):
        raise ValueError(f"{path}: mean_dist_aps: got {by_class!r}, expected numbers by class")
    errors = content.get("tp_errors")
    errors = errors if isinstance(errors, dict) else {}
    return Scores(
        path,
        float(content["mean_ap"]),
        float(content["nd_score"]) if _is_number(content.get("nd_score")) else None,
        dict(sorted(by_class.items(), key=lambda item: (item[1] != item[1], -item[1]))),
        {name: float(value) for name, value in errors.items() if _is_number(value)},
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
