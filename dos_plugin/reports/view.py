"""Scans of a run for the page of :mod:`dos_plugin.drawing.viewer`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from torch import Tensor

from dos_plugin.drawing.viewer import View
from dos_plugin.models.inputs import WIDTHS, feature_keys
from dos_plugin.probing.prototypes import Projector, Usage, strongest_prototype
from dos_plugin.probing.scans import Scan, dataset_config
from dos_plugin.runs.run import Run


def run_views(
    run: Run,
    scans: Iterable[Scan],
    features: Callable[[Scan], Tensor] | None = None,
    projector: Projector | None = None,
    usage: Usage | None = None,
) -> list[View]:
    """Scans as a run's probe reads them, each encoded once.

    Strengths are those of the points that stand for the voxels.

    Args:
        run: the run, whose config says what the inputs are.
        scans: the scans.
        features: gives the (N, C) features of a scan's voxels; None leaves them out.
        projector: the teacher up to its prototypes; None leaves these out.
        usage: their use, which says how the teacher weighs them; needed with a projector.
    """
    strength = _strength_column(run)
    return [
        View(
            name=scan.name,
            coord=scan.origin_coord,
            segment=scan.origin_segment if (scan.origin_segment >= 0).any() else None,
            strength=None if strength is None else scan.feat[:, strength].numpy()[scan.inverse],
            features=None if features is None else features(scan).numpy(),
            inverse=scan.inverse,
            prototype=None if features is None else prototypes(scan, projector, usage),
        )
        for scan in scans
    ]


def prototypes(scan: Scan, projector: Projector | None, usage: Usage | None) -> np.ndarray | None:
    """(N,) strongest prototype of every voxel; None without prototypes."""
    if projector is None or usage is None:
        return None
    return strongest_prototype(projector, scan, usage.scaling_bias).numpy()


def _strength_column(run: Run) -> int | None:
    """Column of the input features with the strengths, if they are among them."""
    keys: Sequence[str] = feature_keys(dataset_config(run.config)["transform"])
    before = keys[: keys.index("strength")] if "strength" in keys else None
    if before is None or not all(key in WIDTHS for key in before):
        return None
    return sum(WIDTHS[key] for key in before)
