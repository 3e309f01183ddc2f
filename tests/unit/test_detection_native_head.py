"""Targets, losses, suppression and decoding against torch-pointcloud and by hand."""

import pytest
import torch
from torch_pointcloud.losses import gaussian_focal_loss as other_focal
from torch_pointcloud.ops.box3d import boxes_iou_bev, nms3d
from torch_pointcloud.ops.heatmap import draw_heatmap_targets

from dos_plugin.detection.native.head import CentreHead, Neck, peaks
from dos_plugin.detection.native.losses import code_loss, gaussian_focal_loss
from dos_plugin.detection.native.nms import corners_bev, iou_bev, suppress
from dos_plugin.detection.native.targets import Plane, decode_code, make_targets, task_classes

PLANE = Plane((-20.0, -16.0), 0.8, (40, 50))  # 40 cells along y, 50 along x


def draw(count=40, seed=0):
    g = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([-19.5, -15.5, -2.0]), torch.tensor([19.5, 15.5, 2.0])
    centre = low + (high - low) * torch.rand(count, 3, generator=g)
    size = 0.4 + 6 * torch.rand(count, 3, generator=g)
    yaw = 6.28 * torch.rand(count, 1, generator=g) - 3.14
    boxes = torch.cat([centre, size, yaw, torch.randn(count, 2, generator=g)], 1)
    return boxes, torch.randint(0, 3, (count,), generator=g)


def test_targets_are_those_of_the_oracle():
    boxes, labels = draw()
    batch = (torch.arange(40) >= 25).long()
    ours = make_targets(boxes, labels, batch, 2, 3, PLANE)
    for number in range(2):
        own = batch == number
        heat, code, place, mask = draw_heatmap_targets(
            boxes[own], labels[own], 3, (50, 40), [0.8, 0.8, 8], [-20, -16, -4, 20, 16, 4], 1
        )
        torch.testing.assert_close(ours.heat[number], heat)
        mine = ours.batch == number
        assert (ours.row * 50 + ours.col)[mine].tolist() == place[mask.bool()].tolist()
        swapped = code[mask.bool()][:, [0, 1, 2, 3, 4, 5, 7, 6, 8, 9]]  # theirs: cosine first
        torch.testing.assert_close(ours.code[mine], swapped)


def test_codes_come_back():
    boxes, labels = draw()
    target = make_targets(boxes, labels, torch.zeros(40).long(), 1, 3, PLANE)
    torch.testing.assert_close(
        decode_code(target.code, target.row, target.col, PLANE), boxes, atol=1e-4, rtol=1e-5
    )


def test_ignored_and_outside():
    boxes, labels = draw(5)
    boxes[0, 0] = 20.0  # the first place outside
    boxes[1, 1] = -16.001
    labels[2] = -1
    boxes[3, 0] = -20.0
    target = make_targets(boxes, labels, torch.zeros(5).long(), 1, 3, PLANE)
    torch.testing.assert_close(target.code[:, 2], boxes[3:, 2])
    assert target.heat.eq(1).sum() == 2 and target.col[0] == 0
    empty = make_targets(boxes[:0], labels[:0], labels[:0], 2, 3, PLANE)
    assert empty.heat.shape == (2, 3, 40, 50) and not empty.heat.any() and len(empty.code) == 0
    with pytest.raises(ValueError, match="box_labels"):
        make_targets(boxes, labels + 3, torch.zeros(5).long(), 1, 3, PLANE)


def test_what_lies_under_ignored_boxes_is_no_background():
    boxes, labels = draw(12)
    boxes[0, :2] = torch.tensor([-21.0, 30.0])  # far away
    boxes[1, 0] = 20.5  # reaches into the map
    labels[:5] = -1
    batch = torch.arange(12) % 2
    target = make_targets(boxes, labels, batch, 2, 3, PLANE)
    middle = torch.tensor(
        [[-19.6 + 0.8 * i, -15.6 + 0.8 * j] for j in range(40) for i in range(50)]
    )
    wanted = torch.zeros(2, 40 * 50, dtype=torch.bool)
    for box, scan in zip(boxes[:5], batch[:5]):
        turn = torch.tensor([[box[6].cos(), -box[6].sin()], [box[6].sin(), box[6].cos()]])
        local = ((middle - box[:2]) @ turn).abs()
        wanted[scan] |= (local <= box[3:5] / 2 + 0.4).all(1)
    assert torch.equal(target.ignored, wanted.view(2, 40, 50)) and wanted.sum() > 20
    assert wanted.view(2, 40, 50)[:, :, -1].any()

    logits = torch.full((2, 3, 40, 50), -9.0)
    quiet = gaussian_focal_loss(logits, target.heat, target.ignored)
    logits[target.ignored[:, None].expand_as(logits) & (target.heat < 1)] = 9.0
    torch.testing.assert_close(gaussian_focal_loss(logits, target.heat, target.ignored), quiet)
    assert gaussian_focal_loss(logits, target.heat) > 10 * quiet
    centre = target.heat.eq(1)
    everywhere = torch.ones_like(target.ignored)
    logits = torch.zeros(2, 3, 40, 50)
    expected = torch.log(torch.tensor(2.0)) / 4  # of centres alone
    assert centre.sum() == 7
    torch.testing.assert_close(gaussian_focal_loss(logits, target.heat, everywhere), expected)


def test_focal_loss():
    boxes, labels = draw()
    heat = make_targets(boxes, labels, torch.zeros(40).long(), 1, 3, PLANE).heat
    logits = torch.randn(heat.shape, dtype=torch.float64, requires_grad=True)
    ours = gaussian_focal_loss(logits, heat)
    theirs = other_focal(logits.sigmoid(), heat.double())
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    for value in (-60.0, 60.0):  # in half precision, too
        logits = torch.full(heat.shape, value, dtype=torch.bfloat16, requires_grad=True)
        gaussian_focal_loss(logits, heat).backward()
        assert torch.isfinite(logits.grad).all()
    nothing = gaussian_focal_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    assert nothing.item() == pytest.approx(4 * 0.25 * 0.6931, rel=1e-3)


def test_code_loss():
    code = torch.tensor([[1.0, 2.0, torch.nan], [0.0, 0.0, 1.0]])
    predicted = torch.zeros(2, 3, requires_grad=True)
    loss = code_loss(predicted, code, [1, 1, 0.2])
    assert loss.item() == pytest.approx((1 + 2 + 0.2) / 2)
    loss.backward()
    assert predicted.grad[0, 2] == 0 and predicted.grad[1, 2] != 0
    gone = torch.cat([torch.zeros(2, 2), torch.full((2, 1), torch.nan)], 1)  # no such branch
    assert code_loss(gone, code, [1, 1, 0]).item() == pytest.approx(1.5)
    assert code_loss(gone[:0], code[:0], [1, 1, 0]).item() == 0


def clipped(polygon, other):
    """Sutherland-Hodgman: the part of a polygon inside a convex one, both counter-clockwise."""
    for (ax, ay), (bx, by) in zip(other, other[1:] + other[:1]):
        side = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in polygon]
        kept = []
        for i, (x, y) in enumerate(polygon):
            if side[i - 1] * side[i] < 0:
                t = side[i - 1] / (side[i - 1] - side[i])
                px, py = polygon[i - 1]
                kept.append((px + t * (x - px), py + t * (y - py)))
            if side[i] >= 0:
                kept.append((x, y))
        polygon = kept
    return polygon


def area(polygon):
    pairs = zip(polygon, polygon[1:] + polygon[:1])
    return sum(ax * by - bx * ay for (ax, ay), (bx, by) in pairs) / 2


def test_iou_by_clipping():
    boxes = draw(60, seed=1)[0].double()
    boxes[:, :2] *= 0.3
    boxes[5], boxes[7] = boxes[6], boxes[8]  # the same, turned by half, and one inside another
    boxes[7, 6] += 3.141592653589793
    boxes[10] = boxes[9]
    boxes[10, 3:6] *= 0.5
    quads = [[tuple(p) for p in quad] for quad in corners_bev(boxes).tolist()]
    ours = iou_bev(boxes, boxes)
    for i, a in enumerate(quads):
        for j, b in enumerate(quads):
            both = area(clipped(a, b))
            assert ours[i, j] == pytest.approx(both / (area(a) + area(b) - both), abs=1e-6)


def test_iou_and_rotated_nms():
    boxes, labels = draw(120, seed=1)
    boxes[:, :2] *= 0.3
    boxes[5] = boxes[6]
    scores = torch.rand(120, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        iou_bev(boxes, boxes).float(), boxes_iou_bev(boxes[:, :7], boxes[:, :7]), atol=2e-3, rtol=0
    )
    ours = suppress(boxes, scores, labels, "rotated", torch.full((3,), 0.2), 500)
    theirs = nms3d(boxes[:, :7], scores, 0.2, labels=labels, rotated=True)
    assert set(ours.tolist()) == set(theirs.tolist())
    assert scores[ours].diff().max() <= 0
    assert suppress(boxes, scores, labels, "rotated", torch.full((3,), 0.2), 7).tolist() == (
        ours[:7].tolist()
    )


def test_circle_nms():
    boxes = torch.zeros(4, 9)
    boxes[:, 0] = torch.tensor([0.0, 0.9, 1.8, 0.1]) + 50  # far away, where rounding shows
    scores, labels = torch.tensor([0.5, 0.9, 0.4, 0.1]), torch.tensor([0, 0, 0, 1])
    kept = suppress(boxes, scores, labels, "circle", torch.tensor([0.95, 5.0]), 9)
    assert kept.tolist() == [1, 3]
    kept = suppress(boxes, scores, labels, "circle", torch.tensor([0.85, 5.0]), 9)
    assert kept.tolist() == [1, 0, 2, 3]
    none = suppress(boxes[:0], scores[:0], labels[:0], "rotated", torch.tensor([0.1, 0.1]), 9)
    assert len(none) == 0
    with pytest.raises(ValueError, match="nms"):
        suppress(boxes, scores, labels, "square", torch.ones(2), 9)


def test_peaks_and_parts():
    logits = torch.full((2, 5, 6), -9.0)
    logits[1, 2, 3], logits[1, 2, 4], logits[0, 4, 0] = 2.0, 1.0, 3.0
    score, label, row, col = peaks(logits, 500, 0.1)
    assert label.tolist() == [0, 1] and row.tolist() == [4, 2] and col.tolist() == [0, 3]
    torch.testing.assert_close(score, torch.tensor([3.0, 2.0]).sigmoid())
    head = CentreHead(8, 3, velocity=False, channels=4)
    heat, code = head(Neck(6, 4, 1)(torch.rand(2, 6, 9, 7)))
    assert heat.shape == (2, 3, 9, 7) and code.shape == (2, 10, 9, 7)
    assert code[:, 8:].isnan().all() and torch.isfinite(code[:, :8]).all()
    assert task_classes(3, [[2], [0, 1]]) == [[2], [0, 1]] and task_classes(2, None) == [[0, 1]]
    with pytest.raises(ValueError, match="tasks"):
        task_classes(3, [[0], [0, 1]])
