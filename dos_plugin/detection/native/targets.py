"""What a centre head should say: heat maps with a hill on every centre, and a code a box.

Codes are those of CenterPoint (arXiv 2006.11275): place of the centre in its cell (x, y, in cells),
height of the centre in metres, logarithms of length, width and height, sine and cosine of the yaw,
velocity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dos_plugin.detection.native.boxes import LENGTH, VX, WIDTH, YAW

CODE = 10
MIN_LENGTH = 1e-3  # metres, before the logarithm


class Plane(NamedTuple):
    """Cells of the map."""

    low: tuple[float, float]  # x, y of the lower corner, metres
    cell: float  # edge, metres
    shape: tuple[int, int]  # along y and x


class Targets(NamedTuple):
    """Of a batch; rows are the boxes with a class and a centre on the map."""

    heat: Tensor  # (B, C, H, W), 1 at centres
    batch: Tensor  # (M,) int64
    row: Tensor  # (M,) int64: cell along y
    col: Tensor  # (M,) int64: cell along x
    label: Tensor  # (M,) int64
    code: Tensor  # (M, 10), NaN where a velocity is not known
    ignored: Tensor  # (B, H, W) bool: under boxes of label -1, which are no background


@torch.no_grad()
def make_targets(
    boxes: Tensor,
    labels: Tensor,
    batch: Tensor,
    batch_size: int,
    num_classes: int,
    plane: Plane,
    min_overlap: float = 0.1,
    min_radius: int = 2,
) -> Targets:
    """Heat maps and codes.

    Args:
        boxes: (K, 9).
        labels: (K,) int64, -1 for boxes that are neither target nor background.
        batch: (K,) int64 scan of each.
        batch_size: B.
        num_classes: C.
        plane: The map.
        min_overlap: A hill reaches as far as a box moved by it overlaps by this much (CornerNet).
        min_radius: Smallest reach, cells.

    Raises:
        ValueError: For a label beyond the classes.
    """
    if len(labels) and (int(labels.max()) >= num_classes or int(labels.min()) < -1):
        raise ValueError(
            f"box_labels: expected classes from -1 (ignored) to {num_classes - 1}, got "
            f"{int(labels.min())} to {int(labels.max())}"
        )
    boxes = boxes.float()
    height, width = plane.shape
    place = (boxes[:, :2] - boxes.new_tensor(plane.low)) / plane.cell
    cell = place.floor()
    limits = boxes.new_tensor([width, height])
    ignored = _footprints(boxes[labels < 0], batch[labels < 0], batch_size, plane)
    kept = (labels >= 0) & ((cell >= 0) & (cell < limits)).all(1)
    boxes, labels, batch, place, cell = (x[kept] for x in (boxes, labels, batch, place, cell))
    col, row = cell.long().unbind(1)
    sizes = boxes[:, LENGTH:YAW].clamp_min(MIN_LENGTH)
    code = torch.cat(
        [
            place - cell,
            boxes[:, 2:3],
            sizes.log(),
            boxes[:, YAW : YAW + 1].sin(),
            boxes[:, YAW : YAW + 1].cos(),
            boxes[:, VX:],
        ],
        dim=1,
    )
    heat = boxes.new_zeros(batch_size, num_classes, height, width)
    if len(boxes):
        length, breadth = boxes[:, LENGTH] / plane.cell, boxes[:, WIDTH] / plane.cell
        radius = gaussian_radius(length, breadth, min_overlap).long().clamp_min(min_radius)
        _draw(heat, batch, labels, row, col, radius)
    return Targets(heat, batch, row, col, labels, code, ignored)


def gaussian_radius(length: Tensor, width: Tensor, min_overlap: float) -> Tensor:
    """How far the two corners of a box may move until it overlaps by less than ``min_overlap``.

    CornerNet (arXiv 1808.01244) with its published slip, a denominator left out in all three cases,
    which every CenterPoint has and which its settings are made for.
    """
    half = length + width
    area = length * width
    free = (1 - min_overlap) / (1 + min_overlap)
    both = (half + (half**2 - 4 * area * free).sqrt()) / 2
    inner = (2 * half + (4 * half**2 - 16 * (1 - min_overlap) * area).sqrt()) / 2
    outer = -2 * min_overlap * half
    outer = (outer + (outer**2 + 16 * min_overlap * (1 - min_overlap) * area).sqrt()) / 2
    return torch.minimum(torch.minimum(both, inner), outer)


def _draw(
    heat: Tensor, batch: Tensor, label: Tensor, row: Tensor, col: Tensor, radius: Tensor
) -> None:
    """Hills of all boxes at once, in place; where two meet, the higher one counts."""
    _, classes, height, width = heat.shape
    reach = int(radius.max())
    steps = torch.arange(-reach, reach + 1, device=heat.device)
    dy, dx = (steps.view(shape) for shape in ((1, -1, 1), (1, 1, -1)))
    r = radius.view(-1, 1, 1)
    sigma = (2 * r + 1) / 6
    hill = torch.exp(-(dx**2 + dy**2) / (2 * sigma**2))  # (M, D, D)
    y, x = row.view(-1, 1, 1) + dy, col.view(-1, 1, 1) + dx
    drawn = (dx.abs() <= r) & (dy.abs() <= r) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    place = (((batch * classes + label).view(-1, 1, 1) * height + y) * width + x)[drawn]
    heat.view(-1).scatter_reduce_(0, place, hill[drawn].to(heat.dtype), "amax")


def _footprints(boxes: Tensor, batch: Tensor, batch_size: int, plane: Plane) -> Tensor:
    """Cells (B, H, W) whose middle lies under a box that is half a cell larger on each side."""
    height, width = plane.shape
    under = torch.zeros(batch_size, height, width, dtype=torch.bool, device=boxes.device)
    if not len(boxes):
        return under
    half = boxes[:, LENGTH : LENGTH + 2] / 2 / plane.cell + 0.5  # cells
    reach = int(half.norm(dim=1).max().clamp(max=max(plane.shape))) + 1
    place = (boxes[:, :2] - boxes.new_tensor(plane.low)) / plane.cell
    steps = torch.arange(-reach, reach + 1, device=boxes.device)
    col, row = (p.floor().long()[:, None] + steps for p in place.unbind(1))  # (K, D)
    x, y = ((cells + 0.5 - p[:, None]) for cells, p in zip((col, row), place.unbind(1)))
    x, y = x[:, None, :], y[:, :, None]
    c, s = (f(boxes[:, YAW]).view(-1, 1, 1) for f in (torch.cos, torch.sin))
    inside = ((c * x + s * y).abs() <= half[:, 0].view(-1, 1, 1)) & (
        (c * y - s * x).abs() <= half[:, 1].view(-1, 1, 1)
    )
    row, col = row[:, :, None], col[:, None, :]
    inside &= (row >= 0) & (row < height) & (col >= 0) & (col < width)
    box, i, j = inside.nonzero(as_tuple=True)
    under[batch[box], row[box, i, 0], col[box, 0, j]] = True
    return under


def decode_code(code: Tensor, row: Tensor, col: Tensor, plane: Plane) -> Tensor:
    """Boxes (M, 9) of codes (M, 10) at cells; the inverse of :func:`make_targets`."""
    cell = torch.stack([col, row], dim=1).to(code.dtype)
    centre = (cell + code[:, :2]) * plane.cell + code.new_tensor(plane.low)
    sizes = code[:, 3:6].clamp(-7, 5).exp()  # 1 mm to 150 m
    yaw = torch.atan2(code[:, 6], code[:, 7])[:, None]
    return torch.cat([centre, code[:, 2:3], sizes, yaw, code[:, 8:]], dim=1)


def task_classes(num_classes: int, tasks: Sequence[Sequence[int]] | None) -> list[list[int]]:
    """Classes of each task; all in one where there are none.

    Raises:
        ValueError: If a class is in no task or in two.
    """
    groups = [list(task) for task in tasks] if tasks else [list(range(num_classes))]
    if sorted(c for group in groups for c in group) != list(range(num_classes)):
        raise ValueError(
            f"tasks: expected each class from 0 to {num_classes - 1} in one task, got {groups}"
        )
    return groups
