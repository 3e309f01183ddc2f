"""Boxes and points move as one: against matrices that move corners, fronts and moving centres."""

import numpy as np
import pytest

from dos_plugin.detection.native import boxes as ours
from dos_plugin.detection.native import transforms as t

RANGE = (-40.0, -40.0, -4.0, 40.0, 40.0, 4.0)


def draw(count=40, seed=0):
    rng = np.random.default_rng(seed)
    centre = rng.uniform([-30, -30, -2], [30, 30, 2], (count, 3))
    size = rng.uniform(0.3, 8, (count, 3))
    yaw = rng.uniform(-np.pi, np.pi, (count, 1))
    return np.hstack([centre, size, yaw, rng.normal(0, 5, (count, 2))])


def marks(boxes):
    """Corners as a set, middle of the front face, and the centre a second later, by hand."""
    found = []
    for x, y, z, length, width, height, yaw, vx, vy in boxes:
        turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        signs = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]) / 2
        corners = signs * [length, width, height] @ turn.T + [x, y, z]
        front = turn @ [length / 2, 0, 0] + [x, y, z]
        found.append((corners, front, np.array([x + vx, y + vy, z])))
    return found


def same_corners(a, b):
    distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
    assert distance.min(0).max() < 1e-6 and distance.min(1).max() < 1e-6


def test_corners():
    boxes = draw()
    for corners, (expected, front, _) in zip(ours.corners(boxes), marks(boxes)):
        same_corners(corners, expected)
        np.testing.assert_allclose(corners[[0, 3, 4, 7]].mean(0), front, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "transform",
    [t.BoxRotate(), t.BoxFlip(1.0), t.BoxFlip(0.5), t.BoxScale((0.5, 2.0)),
     t.BoxTranslate(((-5, 5), (-3, 3), (-1, 1)))],
)  # fmt: skip
def test_marks_move_with_points(transform, seed):
    import random

    boxes = draw(seed=seed)
    before = marks(boxes)
    points = np.concatenate([np.vstack([c, f, m]) for c, f, m in before])
    random.seed(seed)
    out = transform(dict(coord=points, boxes=boxes.copy(), box_labels=np.zeros(40, int)))
    moved = out["coord"].reshape(40, 10, 3)
    assert np.abs(out["boxes"][:, ours.YAW]).max() <= np.pi + 1e-12
    for rows, (corners, front, later) in zip(moved, marks(out["boxes"])):
        same_corners(rows[:8], corners)
        np.testing.assert_allclose(rows[8], front, atol=1e-6)
        np.testing.assert_allclose(rows[9], later, atol=1e-6)


def test_flips_of_one_axis():
    data = dict(coord=np.ones((1, 3)), boxes=draw(3), box_labels=np.zeros(3, int))
    out = t.BoxFlip(1.0, axes=(1,))(data)
    assert out["coord"].tolist() == [[1, -1, 1]]
    with pytest.raises(ValueError, match="axes: expected some of 0"):
        t.BoxFlip(axes=(2,))


def test_unknown_velocity_stays_unknown():
    boxes = draw(3)
    boxes[1, 7:] = np.nan
    for transform in (t.BoxRotate(), t.BoxFlip(1.0), t.BoxScale(), t.BoxTranslate()):
        data = dict(coord=np.zeros((1, 3)), boxes=boxes, box_labels=np.zeros(3, int))
        out = transform(data)["boxes"]
        assert np.isnan(out[1, 7:]).all() and np.isfinite(np.delete(out, 1, 0)).all()


def test_scenes_without_boxes_and_without_points():
    for transform in (
        t.BoxRotate(), t.BoxFlip(1.0), t.BoxScale(), t.BoxTranslate(), t.BoxRangeFilter(RANGE),
        t.RangeVoxels(RANGE, 0.5),
    ):  # fmt: skip
        data = dict(coord=np.zeros((0, 3), np.float32), boxes=np.zeros((0, 9)))
        out = transform(data | dict(box_labels=np.zeros(0, int)))
        assert out["coord"].shape == (0, 3) and out["coord"].dtype == np.float32
        assert out["boxes"].shape == (0, 9)


def test_range_filter():
    boxes = draw(4)
    boxes[:, :3] = [[0, 0, 0], [39.9, 0, 9], [40.0, 0, 0], [0, -41, 0]]
    coord = np.array([[0, 0, 0], [0, 0, 4.0], [-40, 0, 0], [np.nan, 0, 0]], np.float32)
    data = dict(coord=coord, strength=np.arange(4)[:, None], boxes=boxes)
    out = t.BoxRangeFilter(RANGE)(data | dict(box_labels=np.arange(4)))
    assert out["strength"].ravel().tolist() == [0, 2] and out["box_labels"].tolist() == [0, 1]


def test_range_voxels():
    rng = np.random.default_rng(0)
    coord = rng.uniform(-45, 45, (5000, 3)).astype(np.float32)
    coord[:, 2] /= 8
    coord[7] = np.nan
    data = dict(coord=coord, strength=np.arange(5000)[:, None])
    out = t.RangeVoxels(RANGE, 2.0)(dict(data))
    cells = out["grid_coord"]
    assert (coord[out["strength"].ravel()] == out["coord"]).all()
    assert (np.floor((out["coord"] + [40, 40, 4]) / 2.0) == cells).all()
    inside = ((coord >= RANGE[:3]) & (coord < RANGE[3:])).all(1)
    expected = np.unique(np.floor((coord[inside] + [40, 40, 4]) / 2.0), axis=0)
    assert (np.unique(cells, axis=0) == expected).all() and len(cells) == len(expected)
    assert not (t.RangeVoxels(RANGE, 2.0)(dict(data))["strength"] == out["strength"]).all()
    first = [t.RangeVoxels(RANGE, 2.0, shuffle=False)(dict(data))["strength"] for _ in range(2)]
    assert (first[0] == first[1]).all()


def test_bad_boxes():
    boxes = draw(3)
    boxes[0, 7] = np.nan  # a velocity may be unknown
    assert ours.checked(boxes, "scan") is boxes
    for column, value in ((0, np.nan), (6, np.inf), (4, 0.0)):
        bad = boxes.copy()
        bad[2, column] = value
        with pytest.raises(ValueError, match="scan: box 2 has a value"):
            ours.checked(bad, "scan")
    with pytest.raises(ValueError, match=r"must be \(K, 9\)"):
        ours.checked(boxes[:, :7], "scan")
    with pytest.raises(ValueError, match="point_cloud_range"):
        t.BoxRangeFilter((1, 0, 0, 0, 1, 1))
    with pytest.raises(ValueError, match="whole number"):
        t.RangeVoxels((0, 0, 0, 1.05, 1, 1), 0.1)
