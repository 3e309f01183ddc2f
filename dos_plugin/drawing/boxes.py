"""Oriented boxes on pictures of scans: true ones thin, white and dashed, found ones in colour.

A box is x, y, z of its centre, length, width, height (metres) and yaw (radians, counter-clockwise
from +x). Seen from above it is its outline with a line from the centre through the front; in
perspective all edges, and that line on the underside. Letters: K boxes, (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dos_plugin.drawing.render import BACKGROUND, FALLBACK_PALETTE, NEAR, Camera, project

Colour = tuple[int, int, int]

TRUTH: Colour = (255, 255, 255)

# Classes of nuScenes, KITTI, Waymo and the streets, by their names in small letters.
COLOURS: dict[str, Colour] = {
    "car": (84, 170, 255),
    "van": (60, 210, 220),
    "vehicle": (84, 170, 255),
    "truck": (150, 120, 255),
    "bus": (255, 120, 220),
    "tram": (255, 120, 220),
    "trailer": (190, 160, 255),
    "construction_vehicle": (200, 140, 90),
    "bicycle": (90, 235, 130),
    "cyclist": (90, 235, 130),
    "motorcycle": (190, 235, 70),
    "pedestrian": (255, 95, 110),
    "person_sitting": (255, 95, 110),
    "traffic_cone": (255, 160, 40),
    "cone": (255, 160, 40),
    "barrier": (225, 205, 120),
    "misc": (170, 175, 185),
}

# Corners of a box in units of half its lengths: underside from front left, then the top.
CORNERS = np.array(
    [[x, y, z] for z in (-1, 1) for x, y in ((1, 1), (1, -1), (-1, -1), (-1, 1))], dtype=np.float64
)
EDGES = np.array(
    [[i + z, (i + 1) % 4 + z] for z in (0, 4) for i in range(4)] + [[i, i + 4] for i in range(4)]
)
# The front's line reaches so far beyond the front, metres, but no more than half the length.
HEADING = 0.8
# Pixels of a dash and of the gap behind it.
DASH, DASH_GAP = 5.0, 3.5


class Drawing(NamedTuple):
    """Boxes and how they look.

    Attributes:
        box: (K, 7 or more).
        colour: K colours.
        score: K numbers to write beside them, or None.
        width: of the lines, pixels.
        dashed: whether they are.
    """

    box: np.ndarray
    colour: Sequence[Colour]
    score: np.ndarray | None = None
    width: float = 1.6
    dashed: bool = False


def class_colour(name: str) -> Colour:
    """Colour of a class, the same in every picture."""
    text = name.lower().replace(" ", "_")
    number = sum((i + 1) * ord(letter) for i, letter in enumerate(text))
    return COLOURS.get(text, FALLBACK_PALETTE[number % len(FALLBACK_PALETTE)])


def true_boxes(box: np.ndarray) -> Drawing:
    """How true boxes look."""
    return Drawing(box, [TRUTH] * len(box), width=1.1, dashed=True)


def found_boxes(box: np.ndarray, label: Sequence[str], score: np.ndarray | None = None) -> Drawing:
    """How boxes of a detector look: the colour of their class."""
    return Drawing(box, [class_colour(name) for name in label], score)


def corners(box: np.ndarray) -> np.ndarray:
    """(K, 8, 3) corners of boxes (K, 7 or more), in the order of ``CORNERS``."""
    return _placed(box, CORNERS)


def draw_boxes(image: np.ndarray, drawing: Drawing, camera: Camera) -> np.ndarray:
    """Draw boxes onto a picture of :func:`~dos_plugin.drawing.render.render`.

    Args:
        image: (H, W, 3) uint8, taken by the camera.
        drawing: boxes; what is hidden in the scan is drawn, too.
        camera: the picture's.

    Returns:
        (H, W, 3) uint8, another array.

    Raises:
        ValueError: if boxes, colours and scores differ in number.
    """
    box = np.asarray(drawing.box, dtype=np.float64)
    for name, values in (("colour", drawing.colour), ("score", drawing.score)):
        if values is not None and len(values) != len(box):
            raise ValueError(f"{name}: got {len(values)} for {len(box)} boxes, expected one each")
    canvas = image.astype(np.float64)
    if not len(box):
        return image.copy()
    flat = not camera.field_of_view
    corner = corners(box)
    edges = corner[:, EDGES[4:8] if flat else EDGES]  # (K, E, 2, 3)
    height = 1.0 if flat else -1.0
    ray = _placed(box, np.array([[0.0, 0.0, height], [1.0, 0.0, height]]))
    beyond = np.minimum(HEADING, box[:, 3] / 2)
    ray[:, 1, 0] += beyond * np.cos(box[:, 6])
    ray[:, 1, 1] += beyond * np.sin(box[:, 6])
    # Weak ones first, so that strong ones lie above them.
    order = (
        np.argsort(drawing.score, kind="stable") if drawing.score is not None else range(len(box))
    )
    for row in order:
        for line in edges[row]:
            _line(canvas, line, camera, drawing.colour[row], drawing.width, drawing.dashed)
        _line(canvas, ray[row], camera, drawing.colour[row], drawing.width, False)
    picture = canvas.round().astype(np.uint8)
    if drawing.score is None:
        return picture
    return _write_scores(picture, drawing, corner, camera)


def clip_near(line: np.ndarray, depth: np.ndarray) -> np.ndarray | None:
    """The part of a line (2, 3) in front of the near plane; None if there is none.

    Args:
        line: its two ends, metres.
        depth: (2,) distance of the ends along the line of sight, metres.
    """
    near = NEAR * (1 + 1e-6)
    if (depth < near).all():
        return None
    if (depth >= near).all():
        return line
    front, behind = (0, 1) if depth[0] > depth[1] else (1, 0)
    share = (depth[front] - near) / (depth[front] - depth[behind])
    cut = line.copy()
    cut[behind] = line[front] + share * (line[behind] - line[front])
    return cut


def _placed(box: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (P, 3) in halves of the lengths of boxes, in the scan's coordinates (K, P, 3)."""
    box = np.asarray(box, dtype=np.float64)
    local = points[None] * box[:, None, 3:6] / 2
    c, s = np.cos(box[:, 6])[:, None], np.sin(box[:, 6])[:, None]
    x, y = c * local[..., 0] - s * local[..., 1], s * local[..., 0] + c * local[..., 1]
    return np.stack([x, y, local[..., 2]], axis=-1) + box[:, None, :3]


def _line(
    canvas: np.ndarray,
    line: np.ndarray,
    camera: Camera,
    colour: Colour,
    width: float,
    dashed: bool,
) -> None:
    """Blend a line (2, 3) into a picture; a pixel is covered as far as it lies in the line."""
    height, across = canvas.shape[:2]
    depth = project(line, camera, across, height)[2]
    if camera.field_of_view:
        cut = clip_near(line, depth)
        if cut is None:
            return
        line = cut
    elif (depth <= NEAR).any():
        return
    column, row, _ = project(line, camera, across, height)
    start = np.array([column[0], row[0]])
    end = np.array([column[1], row[1]])
    reach = width / 2 + 1
    # The frame of the picture cuts far ends off, so that the loop over dashes and pixels is short.
    visible = _clip_frame(start, end, (-reach, -reach), (across + reach, height + reach))
    if visible is None:
        return
    (first, last), length = visible, float(np.linalg.norm(end - start))
    a, b = start + first * (end - start), start + last * (end - start)
    low = np.maximum(np.floor(np.minimum(a, b) - reach), 0).astype(int)
    high = np.minimum(np.ceil(np.maximum(a, b) + reach) + 1, (across, height)).astype(int)
    if (high <= low).any():
        return
    x = np.arange(low[0], high[0]) + 0.5
    y = (np.arange(low[1], high[1]) + 0.5)[:, None]
    along = (end - start) / max(length, 1e-9)
    # Place along the line and distance from it, pixels.
    place = (x - start[0]) * along[0] + (y - start[1]) * along[1]
    nearest = np.clip(place, 0, length)
    distance = np.hypot(x - start[0] - nearest * along[0], y - start[1] - nearest * along[1])
    cover = np.clip(width / 2 + 0.5 - distance, 0, 1) * min(1.0, width)
    if dashed and length > 2 * DASH:
        from_middle = np.abs((nearest % (DASH + DASH_GAP)) - DASH / 2)
        from_middle = np.minimum(from_middle, DASH + DASH_GAP - from_middle)
        cover = cover * np.clip(DASH / 2 + 0.5 - from_middle, 0, 1)
    part = canvas[low[1] : high[1], low[0] : high[0]]
    part += cover[..., None] * (np.array(colour, dtype=np.float64) - part)


def _clip_frame(
    start: np.ndarray, end: np.ndarray, low: tuple[float, float], high: tuple[float, float]
) -> tuple[float, float] | None:
    """Shares of a line at which it enters and leaves a rectangle; None if it misses it."""
    first, last = 0.0, 1.0
    for axis in (0, 1):
        step = end[axis] - start[axis]
        to_low, to_high = low[axis] - start[axis], high[axis] - start[axis]
        if abs(step) < 1e-9:
            if to_low > 0 or to_high < 0:
                return None
            continue
        entry, leave = sorted((to_low / step, to_high / step))
        first, last = max(first, entry), min(last, leave)
    return (first, last) if first <= last else None


def _write_scores(
    picture: np.ndarray, drawing: Drawing, corner: np.ndarray, camera: Camera
) -> np.ndarray:
    """Scores above their boxes, highest first; those that would cover another are left out."""
    from PIL import Image, ImageDraw, ImageFont

    assert drawing.score is not None
    image = Image.fromarray(picture)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    height, width = picture.shape[:2]
    taken: list[tuple[float, float, float, float]] = []
    for row in np.argsort(-drawing.score, kind="stable"):
        column, line, depth = project(corner[row], camera, width, height)
        if not np.isfinite(column).all() or (depth <= NEAR).any():
            continue
        text = f"{drawing.score[row]:.2f}"
        x, y = float((column.min() + column.max()) / 2), float(line.min()) - 3
        left, top, right, bottom = pen.textbbox((x, y), text, font, anchor="ms")
        if left < 0 or top < 0 or right > width or bottom > height:
            continue
        if any(left < r and right > l and top < b and bottom > t for l, t, r, b in taken):  # noqa: E741
            continue
        taken.append((left, top, right, bottom))
        # A rim in the background's colour, as points may lie behind the digits.
        rim = BACKGROUND
        pen.text((x, y), text, drawing.colour[row], font, "ms", stroke_width=2, stroke_fill=rim)
    return np.asarray(image)
