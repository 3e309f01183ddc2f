"""Pictures of a scan: seen from above and behind the sensor, and from straight above."""

import os
from pathlib import Path

import numpy as np

from .classes import CLASS_NAMES, PALETTE

BACKGROUND = "#0b0e14"
IGNORED = (70, 70, 78)


def class_colors(segment: np.ndarray) -> np.ndarray:
    """Colours (N, 3) in [0, 1] of labels (N,); ignored points are dark grey."""
    table = np.array([*PALETTE, IGNORED], float) / 255
    return table[np.asarray(segment)]  # -1 takes the last row


def project(
    coord: np.ndarray, camera: np.ndarray, target: np.ndarray, focal: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pinhole projection.

    Args:
        coord: (N, 3) metres.
        camera, target: (3,) place of the camera and a point it looks at.
        focal: focal length in picture units.

    Returns:
        right (N,), up (N,) in picture units and depth (N,) in metres.
    """
    forward = target - camera
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    rel = coord - camera
    depth = rel @ forward
    safe = np.maximum(depth, 1e-3)
    return focal * (rel @ right) / safe, focal * (rel @ up) / safe, depth


def draw_scan(
    coord: np.ndarray,
    segment: np.ndarray | None,
    path: str | os.PathLike,
    strength: np.ndarray | None = None,
    colors: np.ndarray | None = None,
    title: str = "",
) -> Path:
    """Write a PNG of a scan.

    Args:
        coord: (N, 3) metres, sensor frame.
        segment: (N,) labels; the legend shows the classes that occur. None: no legend.
        path: file to write; folders are made.
        strength: (N, 1) or (N,) in [0, 1]; shades the points a little.
        colors: (N, 3) in [0, 1] to draw instead of the classes' colours (features, say).
        title: text above the picture.

    Raises:
        ValueError: neither ``segment`` nor ``colors`` is given, or lengths differ.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    coord = np.asarray(coord, float)
    if colors is None:
        if segment is None:
            raise ValueError("segment: None, expected labels because colors is None, too")
        colors = class_colors(segment)
    if len(colors) != len(coord):
        raise ValueError(f"colors: {len(colors)} rows for {len(coord)} points")
    colors = np.array(colors, float)
    if strength is not None:
        colors = colors * (0.62 + 0.38 * np.sqrt(np.asarray(strength, float).reshape(-1, 1)))

    figure = Figure(figsize=(16, 8.4), facecolor=BACKGROUND, dpi=100)
    FigureCanvasAgg(figure)
    wide = figure.add_axes((0.0, 0.07, 0.655, 0.88))
    above = figure.add_axes((0.665, 0.07, 0.33, 0.88))
    for axes in (wide, above):
        axes.set_facecolor(BACKGROUND)
        axes.set_xticks([])
        axes.set_yticks([])
        for edge in axes.spines.values():
            edge.set_visible(False)

    right, up, depth = project(
        coord, np.array([-17.0, -2.5, 9.5]), np.array([9.0, 0.5, -1.0]), 1.25
    )
    # Nothing between the camera and the sensor's surroundings, or a house would fill the picture.
    seen = (depth > 5) & (np.abs(right) < 1.05) & (up > -0.62) & (up < 0.52) & (coord[:, 0] > -13)
    order = np.flatnonzero(seen)[np.argsort(-depth[seen])]
    size = np.clip(95 / depth[order], 0.9, 7) ** 1.1
    wide.scatter(right[order], up[order], s=size, c=colors[order], linewidths=0)
    wide.set_xlim(-1.0, 1.0)
    wide.set_ylim(-0.6, 0.52)

    order = np.argsort(coord[:, 2])
    above.scatter(-coord[order, 1], coord[order, 0], s=1.3, c=colors[order], linewidths=0)
    above.plot(0, 0, marker="^", color="white", markersize=6)
    above.set_xlim(-36, 36)
    above.set_ylim(-50, 50)
    above.set_aspect("equal")

    if segment is not None:
        present = [label for label in np.unique(segment) if label >= 0]
        handles = [
            Line2D([], [], marker="o", linestyle="", markersize=8,
                   color="#{:02x}{:02x}{:02x}".format(*PALETTE[label]), label=CLASS_NAMES[label])
            for label in present
        ]  # fmt: skip
        figure.legend(
            handles=handles,
            loc="lower center",
            ncols=len(handles),
            frameon=False,
            labelcolor="white",
            fontsize=10,
            handletextpad=0.1,
            columnspacing=1.0,
        )
    if title:
        figure.text(0.01, 0.965, title, color="white", fontsize=12)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=BACKGROUND, format="png")
    return path
