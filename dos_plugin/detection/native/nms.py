"""Non-maximum suppression of boxes seen from above, in plain PyTorch."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from dos_plugin.detection.native.boxes import LENGTH, YAW

Kind = Literal["circle", "rotated"]


def suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, kind: Kind, limit: Tensor, keep: int
) -> Tensor:
    """Rows that stay, best first: a box goes if a better one of its class is too close.

    Args:
        boxes: (K, 9).
        scores: (K,).
        labels: (K,) int64.
        kind: "circle": centres closer than ``limit`` metres; "rotated": intersection over union
            above ``limit``.
        limit: (C,) by class.
        keep: Most rows to stay.

    Raises:
        ValueError: For another kind.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"nms: expected one of {get_args(Kind)}, got {kind!r}")
    order = scores.argsort(descending=True, stable=True)
    boxes, labels = boxes[order].float(), labels[order]
    same = labels[:, None] == labels
    own = limit.to(boxes.device)[labels][:, None]
    if kind == "circle":
        # not by a product of matrices, whose rounding moves centres by centimetres
        apart = torch.cdist(boxes[:, :2], boxes[:, :2], compute_mode="donot_use_mm_for_euclid_dist")
        close = same & (apart < own)
    else:
        close = same & (iou_bev(boxes, boxes, same) > own)
    pairs = close.cpu()  # one transfer; the loop below is serial
    alive = torch.ones(len(boxes), dtype=torch.bool)
    kept: list[int] = []
    for i in range(len(boxes)):
        if len(kept) == keep:
            break
        if alive[i]:
            kept.append(i)
            alive &= ~pairs[i]
    return order[torch.tensor(kept, dtype=torch.long, device=order.device)]


def corners_bev(boxes: Tensor) -> Tensor:
    """(K, 4, 2) corners seen from above, counter-clockwise."""
    signs = boxes.new_tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    local = signs * boxes[:, None, LENGTH : LENGTH + 2]
    c, s = boxes[:, YAW, None].cos(), boxes[:, YAW, None].sin()
    x, y = local.unbind(-1)
    turned = torch.stack([c * x - s * y, s * x + c * y], dim=-1)
    return turned + boxes[:, None, :2]


def iou_bev(first: Tensor, second: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Intersection over union seen from above, (K, L), exact for turned boxes.

    Args:
        first: (K, 9).
        second: (L, 9).
        wanted: (K, L) bool, the pairs to look at; others are 0.
    """
    first, second = first.double(), second.double()
    reach = (first[:, LENGTH : LENGTH + 2].norm(dim=1)[:, None] / 2) + (
        second[:, LENGTH : LENGTH + 2].norm(dim=1) / 2
    )
    near = torch.cdist(first[:, :2], second[:, :2]) < reach + 1e-6
    near = near if wanted is None else near & wanted
    i, j = near.nonzero(as_tuple=True)
    iou = first.new_zeros(len(first), len(second))
    if len(i):
        area = [b[:, LENGTH] * b[:, LENGTH + 1] for b in (first, second)]
        both = _intersection(corners_bev(first)[i], corners_bev(second)[j])
        iou[i, j] = both / (area[0][i] + area[1][j] - both).clamp_min(1e-12)
    return iou


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    """Area (P,) that two convex quadrilaterals (P, 4, 2), counter-clockwise, have in common."""
    points = [a, b]
    inside = [_within(a, b), _within(b, a)]
    start, end = a, a.roll(-1, 1)
    other, last = b, b.roll(-1, 1)
    d, e = (end - start)[:, :, None], (last - other)[:, None]  # (P, 4, 1, 2), (P, 1, 4, 2)
    gap = other[:, None] - start[:, :, None]
    across = _cross(d, e)
    safe = torch.where(across.abs() < 1e-12, 1.0, across)
    t, u = _cross(gap, e) / safe, _cross(gap, d) / safe
    hit = (across.abs() >= 1e-12) & (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1)
    points.append((start[:, :, None] + t[..., None] * d).flatten(1, 2))
    inside.append(hit.flatten(1))
    corner, used = torch.cat(points, 1), torch.cat(inside, 1)  # (P, 24, 2), (P, 24)
    count = used.sum(1, keepdim=True)
    middle = (corner * used[..., None]).sum(1) / count.clamp_min(1)
    corner = torch.where(used[..., None], corner - middle[:, None], 0.0)
    angle = torch.where(used, torch.atan2(corner[..., 1], corner[..., 0]), torch.inf)
    order = angle.argsort(1)
    corner = corner.gather(1, order[..., None].expand_as(corner))
    # those that are not used come last: put the first one in their place
    rank = torch.arange(corner.shape[1], device=corner.device)
    corner = torch.where((rank < count)[..., None], corner, corner[:, :1])
    area = _cross(corner, corner.roll(-1, 1)).sum(1) / 2
    return torch.where(count[:, 0] >= 3, area.clamp_min(0), 0.0)


def _within(points: Tensor, quad: Tensor) -> Tensor:
    """Whether (P, 4, 2) points lie in (P, 4, 2) quadrilaterals."""
    side = quad.roll(-1, 1) - quad
    return (_cross(side[:, None], points[:, :, None] - quad[:, None]) >= -1e-9).all(2)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
