"""A picture of a street: from above and in perspective, by class, with a legend."""

import os
from pathlib import Path

import numpy as np

from dos_plugin.drawing.render import label_colours, save_png
from dos_plugin.drawing.sheet import scan_sheet
from dos_plugin.scenes.classes import CLASS_NAMES, PALETTE


def draw_scan(
    coord: np.ndarray,
    segment: np.ndarray,
    path: str | os.PathLike,
    strength: np.ndarray | None = None,
    title: str = "",
) -> Path:
    """Write a PNG of a scan.

    Args:
        coord: (N, 3) metres, sensor frame.
        segment: (N,) labels; the legend shows the classes that occur.
        path: file to write; folders are made.
        strength: (N, 1) or (N,) in [0, 1]; shades the points a little.
        title: text above the picture.

    Raises:
        ValueError: lengths differ.
    """
    colour = label_colours(segment, PALETTE)
    if strength is not None:
        shade = 0.62 + 0.38 * np.sqrt(np.asarray(strength, float).reshape(-1, 1))
        colour = (colour * shade).astype(np.uint8)
    present = [(CLASS_NAMES[k], PALETTE[k]) for k in np.unique(segment) if k >= 0]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(scan_sheet([coord], [colour], ["scan"], title, legend=present), path)
    return path
