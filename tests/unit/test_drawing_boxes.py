"""Boxes on pictures: where their corners land, what is cut off, how lines look."""

import numpy as np
import pytest

from dos_plugin.drawing.boxes import (
    Drawing,
    class_colour,
    clip_near,
    corners,
    draw_boxes,
    found_boxes,
    true_boxes,
)
from dos_plugin.drawing.render import NEAR, Camera, render

ABOVE = Camera((0, 0, 100), (0, 0, 0), span=20, point_size=0.01)
AHEAD = Camera((0, 0, 0), (1, 0, 0), field_of_view=90, point_size=0.01)
RED = (255, 0, 0)
BOX = [3.0, 2.0, 1.0, 4.0, 2.0, 1.0, 0.0]


def dark(width, height):
    return np.zeros((height, width, 3), dtype=np.uint8)


def drawn(box, camera, width=200, height=200, **look):
    box = np.atleast_2d(np.array(box, dtype=float))
    return draw_boxes(dark(width, height), Drawing(box, [RED] * len(box), **look), camera)


def test_corners_turn_counter_clockwise_with_the_length_along_the_yaw():
    box = np.array([[1.0, 2.0, 3.0, 4.0, 2.0, 1.0, np.pi / 2]])
    # The length of 4 now lies along y, the front at y = 4; front left is at x = 0.
    expected = [[0, 4], [2, 4], [2, 0], [0, 0]]
    np.testing.assert_allclose(corners(box)[0, :4, :2], expected, atol=1e-12)
    np.testing.assert_allclose(corners(box)[0, 4:, :2], expected, atol=1e-12)
    np.testing.assert_allclose(corners(box)[0, :, 2], [2.5] * 4 + [3.5] * 4)


def test_outline_from_above_by_hand():
    """10 pixels a metre, x right, y up, the origin in the middle of the picture."""
    image = drawn(BOX, ABOVE, width=200, height=200)
    red = image[..., 0] > 120
    rows, columns = np.nonzero(red)
    # x from 1 to 5: columns 110 to 150, the front's line 0.8 m on; y from 1 to 3: rows 70 to 90.
    assert columns.min() in (109, 110) and columns.max() in (157, 158)
    assert rows.min() in (69, 70) and rows.max() in (89, 90)
    assert red[69:71, 115:145].any(0).all() and red[75:78, 109:111].any(1).all()
    assert red[79:81, 135:157].any(0).all()  # from the centre at (130, 80) through the front
    assert not red[74:77, 113:147].any() and not red[84:87, 113:147].any()


def test_edges_in_perspective_by_hand():
    """A field of 90 degrees: half the width away is a column of depth times 100 pixels."""
    box = [10.0, 0.0, 0.0, 4.0, 6.0, 2.0, 0.0]
    image = drawn(box, AHEAD, width=200, height=100)
    red = image[..., 0] > 100
    # Its near face: depth 8, y = +-3 and z = +-1, so columns 100 -+ 37.5 and rows 50 -+ 12.5.
    for column in (62, 137):
        assert red[40:60, column - 1 : column + 2].any(1).all()
    for row in (37, 62):
        assert red[row - 1 : row + 2, 66:134].any(0).all()
    # Its far face: depth 12, columns 100 -+ 25 and rows 50 -+ 8.3.
    assert red[44:56, 74:77].any(1).all() and red[44:56, 124:127].any(1).all()


@pytest.mark.parametrize("camera", [ABOVE, Camera((-9, -6, 7), (3, 2, 0), 60.0, point_size=0.01)])
def test_boxes_meet_the_points_at_their_corners(camera):
    """Points at the corners, by the renderer, lie on the lines."""
    box = np.array([[3.0, 2.0, 1.0, 4.0, 2.0, 1.5, 0.6], [-2.0, 1.0, 0.5, 3.0, 1.5, 1.0, -2.1]])
    lines = drawn(box, camera, 320, 240)[..., 0] > 60
    for corner in corners(box).reshape(-1, 3):
        white = np.full((1, 3), 255, dtype=np.uint8)
        point = render(corner[None], white, camera, 320, 240).sum(-1)
        row, column = np.unravel_index(point.argmax(), point.shape)
        assert lines[row - 1 : row + 2, column - 1 : column + 2].any()


def test_lines_end_at_the_near_plane():
    line = np.array([[-1.0, 2.0, 0.0], [3.0, 2.0, 0.0]])
    cut = clip_near(line, line[:, 0])
    np.testing.assert_allclose(cut, [[NEAR, 2, 0], [3, 2, 0]], atol=1e-5)
    np.testing.assert_allclose(clip_near(line[::-1], line[::-1, 0]), cut[::-1])
    assert clip_near(line, np.array([-1.0, 0.1])) is None
    assert clip_near(line, np.array([1.0, 2.0])) is line


def test_box_around_the_camera_and_boxes_behind_it():
    around = drawn([0, 0, 0, 8, 4, 2, 0], AHEAD, 200, 100)
    # The front at depth 4: columns 100 -+ 50, rows 50 -+ 25; its edges run out of the picture.
    red = around[..., 0] > 100
    assert red[30:70, 49:52].any(1).all() and red[24:27, 60:140].any(0).all()
    assert red[:, 10].any() and not red[50, 60:99].any()
    assert not drawn([-10, 0, 0, 4, 2, 2, 0], AHEAD).any()
    assert not drawn([3, 50, 0, 4, 2, 2, 0], AHEAD).any()  # beside the picture
    assert not drawn([0, 0, 200, 4, 2, 2, 0], ABOVE).any()


def test_lines_are_antialiased_and_dashes_have_gaps():
    turned = [0.0, 0.0, 0.0, 12.0, 6.0, 1.0, 0.2]
    whole = drawn(turned, ABOVE)[..., 0]
    assert len(np.unique(whole)) > 20 and whole.max() > 240
    # As much light as lines of this width have: outline and front's line, 10 pixels a metre.
    length = 10 * (2 * 12 + 2 * 6 + 6 + 0.8)
    np.testing.assert_allclose(whole.sum() / 255, 1.6 * length, rtol=0.05)
    dashed = drawn(turned, ABOVE, dashed=True)[..., 0]
    assert 0.5 < dashed.sum() / whole.sum() < 0.75


def test_colours_scores_and_empty_boxes():
    assert class_colour("Car") == class_colour("car") != class_colour("pedestrian")
    assert class_colour("dragon") == class_colour("Dragon")
    box = np.array([BOX])
    image = dark(200, 200)
    plain = draw_boxes(image, found_boxes(box, ["car"]), ABOVE)
    scored = draw_boxes(image, found_boxes(box, ["car"], np.array([0.5])), ABOVE)
    above = slice(50, 68)  # of the box, whose upper edge is row 70
    assert not plain[above].any() and scored[above, 110:150].any()
    assert not image.any()  # the picture given is left as it is
    white = draw_boxes(image, true_boxes(box), ABOVE)
    assert (white[..., 0] == white[..., 2]).all() and white.any()
    none = np.zeros((0, 7))
    assert not draw_boxes(image, found_boxes(none, [], np.zeros(0)), ABOVE).any()
    with pytest.raises(ValueError, match="colour: got 0 for 1 boxes"):
        draw_boxes(image, Drawing(box, []), ABOVE)
    with pytest.raises(ValueError, match="score: got 2 for 1 boxes"):
        draw_boxes(image, Drawing(box, [RED], np.zeros(2)), ABOVE)
