"""Pictures of one scan for a report: by label, by features, by strongest prototype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from dos_plugin.drawing.render import (
    Palette,
    cameras,
    component_colours,
    index_colours,
    label_colours,
    principal_components,
    render,
    save_png,
)
from dos_plugin.probing.prototypes import Projector, Usage, strongest_prototype
from dos_plugin.probing.scans import Scan

# Voxels from which principal components are computed.
COMPONENT_POINTS = 20_000


class Picture(NamedTuple):
    """Files of one colouring, and what it shows."""

    title: str
    caption: str
    birds_eye: Path
    perspective: Path


def draw_labels(scan: Scan, palette: Palette, folder: Path) -> Picture | None:
    """The scan by class; None if it has no labels."""
    if not (scan.origin_segment >= 0).any():
        return None
    return _draw(
        scan,
        label_colours(scan.origin_segment, palette),
        folder / "label",
        "Labels",
        "The true classes. Pretraining never sees them; they are here to compare with.",
    )


def draw_components(
    scan: Scan,
    scans: Sequence[Scan],
    features: Callable[[Scan], Tensor],
    folder: Path,
    name: str,
    title: str,
    caption: str,
) -> Picture:
    """The scan by the first three principal components of its features, as red, green and blue.

    Args:
        scan: the scan to draw.
        scans: scans over which the components are computed.
        features: gives the (N, C) features of a scan's voxels.
        folder: where the files go.
        name: start of the file names.
        title: heading.
        caption: what to look for.
    """
    rows = max(1, COMPONENT_POINTS // len(scans))
    sample = []
    for index, other in enumerate(scans):
        feat = features(other).numpy()
        pick = np.random.default_rng(index).permutation(len(feat))[:rows]
        sample.append(feat[pick])
    joined = np.concatenate(sample)
    # Standardised, or the few channels with large numbers would be all that one sees.
    scale = 1 / np.maximum(joined.std(axis=0), 1e-6)
    components, mean = principal_components(joined * scale)
    colour = component_colours(features(scan).numpy() * scale, components, mean)
    return _draw(scan, colour[scan.inverse], folder / name, title, caption)


def draw_prototypes(scan: Scan, projector: Projector, usage: Usage, folder: Path) -> Picture:
    """The scan by the prototype with the largest share of each point."""
    index = strongest_prototype(projector, scan, usage.scaling_bias).numpy()
    return _draw(
        scan,
        index_colours(index)[scan.inverse],
        folder / "prototype",
        "Strongest prototype",
        f"One colour for each of the {len(np.unique(index))} prototypes that win a point here. "
        "Broad areas belong to the few common prototypes, small details to rare ones: "
        "the long tail that the Zipf prior asks for.",
    )


def _draw(scan: Scan, colour: np.ndarray, path: Path, title: str, caption: str) -> Picture:
    """Both views of a scan with one colour per point on disk."""
    coord = scan.origin_coord
    top, front = path.with_name(f"{path.name}-top.png"), path.with_name(f"{path.name}-view.png")
    above, beside = cameras(coord)
    save_png(render(coord, colour, above, 720, 720), top)
    save_png(render(coord, colour, beside, 1120, 640), front)
    return Picture(title, caption, top, front)
