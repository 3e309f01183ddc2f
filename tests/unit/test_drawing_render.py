"""Points drawn from above and in perspective, and their colours."""

import numpy as np
import pytest

from dos_plugin.drawing.render import (
    BACKGROUND,
    Camera,
    birds_eye,
    component_colours,
    index_colours,
    label_colours,
    principal_components,
    render,
)


def test_nearest_point_wins_a_pixel_and_the_rest_is_background():
    camera = Camera((0, 0, 100), (0, 0, 0), span=20, point_size=0.5)
    coord = np.array([[0, 0, 0], [0, 0, 5], [5, -5, 0]], dtype=float)
    colour = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    image = render(coord, colour, camera, 200, 200)
    np.testing.assert_array_equal(image[100, 100], [0, 255, 0])
    # x goes right and y up: (5, -5) lies 50 pixels right of and below the middle.
    assert image[150, 150, 2] > 200
    np.testing.assert_array_equal(image[20, 20], BACKGROUND)
    outside = render(coord + [0, 0, 1000], colour, camera, 40, 40)  # behind the camera
    assert (outside == np.array(BACKGROUND)).all()


def test_perspective_projects_like_a_pinhole():
    camera = Camera((0, 0, 0), (1, 0, 0), field_of_view=90, point_size=0.1)
    # At 45 degrees to the left and right (y is left), on the edge of a field of 90 degrees.
    coord = np.array([[10, 9.9, 0], [10, -4.95, 0], [10, 0, 2.5]])
    colour = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    image = render(coord, colour, camera, 200, 100)
    for channel, (row, column) in enumerate([(50, 1), (50, 149), (25, 100)]):
        lit = np.argwhere(image[..., channel] > 120)
        np.testing.assert_allclose(lit.mean(0), [row, column], atol=1.5)


def test_colours():
    colours = label_colours(np.array([0, 1, -1, 0]), ((1, 2, 3), (4, 5, 6)))
    assert colours.tolist() == [[1, 2, 3], [4, 5, 6], [86, 90, 100], [1, 2, 3]]
    several = index_colours(np.array([7, 9, 7]))
    assert (several[0] == several[2]).all() and (several[0] != several[1]).any()
    with pytest.raises(ValueError, match="colour: got 1 for 2 points"):
        render(np.zeros((2, 3)), np.zeros((1, 3), dtype=np.uint8), birds_eye())


def test_principal_components_span_the_directions_of_largest_variance():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    feat = rng.standard_normal((500, 6)) * [9, 5, 3, 0.1, 0.1, 0.1] @ basis.T + 4
    components, mean = principal_components(feat)
    np.testing.assert_allclose(np.abs(components @ basis[:, :3]), np.eye(3), atol=0.1)
    colours = component_colours(feat, components, mean)
    values = (feat - mean) @ components.T
    order = values[:, 0].argsort()
    assert (np.diff(colours[order, 0].astype(int)) >= 0).all()
    assert colours.min() == 50 and colours.max() == 255
