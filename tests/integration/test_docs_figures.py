"""docs/figures.py: what it draws is what docs/concepts.md says of it, on small streets."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs/figures.py"

pytest.importorskip("spconv", reason="the embedded host needs the extra 'demo'")
pytest.importorskip("matplotlib", reason="pictures need the extra 'demo'")
pytest.importorskip("scipy", reason="k-means needs the extra 'dev'")
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="needs the source tree")

GRID = 0.2


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("docs_figures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scan(script):
    from dos_plugin.scenes import Sensor, generate_scan

    return generate_scan(script.SCENES[0], Sensor(columns=360))


@pytest.fixture(scope="module")
def hidden(script, scan):
    return script.hide_blocks(scan, grid_size=GRID)


@pytest.fixture(scope="module")
def activations(script, scan):
    return script.activate(scan, num_prototypes=12, grid_size=0.5)


@pytest.fixture(scope="module")
def uses(script, activations):
    return script.use_prototypes(activations)


def rows(coord: np.ndarray) -> set[tuple]:
    return set(map(tuple, coord.tolist()))


def pixels(axis, colour: tuple, tolerance: float = 0.02) -> int:
    """Pixels of a picture in the direction of a colour, however dark it is drawn."""
    picture = axis.images[0].get_array().reshape(-1, 3).astype(float)
    length = np.linalg.norm(picture, axis=1)
    cosine = picture @ np.array(colour) / np.maximum(length * np.linalg.norm(colour), 1e-9)
    return int(((cosine > 1 - tolerance / 10) & (length > 100)).sum())


def test_students_get_what_the_page_says(hidden):
    for view in hidden.views:
        assert 0 < view.visible.sum() < len(view.visible)
        seen, masked = rows(view.coord[view.visible]), rows(view.coord[~view.visible])
        assert rows(view.student) == seen
        assert not rows(view.student) & masked
        # Mask tokens keep every position.
        assert rows(view.token_student) == seen | masked
        assert rows(view.token_student[view.token]) == masked


def test_views_overlap_and_are_points_of_the_scan(hidden):
    first, second = (set(view.point_id.tolist()) for view in hidden.views)
    assert first & second and first - second and second - first
    assert max(first | second) < len(hidden.scan)


def test_no_block_of_the_lattice_that_is_drawn_is_half_hidden(hidden):
    for view in hidden.views:
        cell = np.floor((view.coord - view.corner) / hidden.block_size)
        _, block = np.unique(cell, axis=0, return_inverse=True)
        share = np.bincount(block.ravel(), view.visible) / np.bincount(block.ravel())
        assert set(share) == {0.0, 1.0}
        assert (share == 0).sum() == int(0.7 * len(share))


def test_the_picture_of_the_student_has_nothing_hidden(script, hidden):
    figure = script.views_figure(hidden)
    teacher, student, tokens = figure.axes[3:6]
    assert pixels(student, script.SEEN) > 100
    assert pixels(student, script.HIDDEN) == 0
    assert pixels(tokens, script.HIDDEN) == pixels(teacher, script.HIDDEN) > 100
    assert pixels(tokens, script.SEEN) == pixels(teacher, script.SEEN)
    assert teacher.lines and not student.lines  # the blocks


def test_softmaps_sum_over_points_and_clusters_over_prototypes(activations):
    logits = activations.cosine.astype(float) / 0.07
    exp = np.exp(logits - logits.max())
    np.testing.assert_allclose(activations.softmap, exp / exp.sum(0), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(activations.share, exp / exp.sum(1)[:, None], rtol=1e-3, atol=1e-7)
    assert np.abs(activations.cosine).max() <= 1 + 1e-5


def test_the_sums_in_the_picture_are_those_of_what_is_drawn(script, activations):
    figure = script.softmap_figure(activations)
    axes = np.reshape(figure.axes[:15], (3, 5))
    for column, prototype in enumerate(script.chosen(activations)):
        softmap, share = (axes[row, 1 + column].texts[0].get_text() for row in (1, 2))
        assert softmap == "in sum 1.00"
        points = float(re.search(r"\d+", share)[0])
        assert abs(points - activations.share[:, prototype].sum()) <= 0.5


def test_the_prototypes_shown_are_those_that_the_titles_say(script, activations):
    most, nearest, least = script.chosen(activations)
    use = activations.share.sum(0)
    assert use[most] == use.max() and use[least] == use.min()
    prototypes = activations.logits.prototypes
    torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(len(prototypes)))
    cosine = prototypes @ prototypes[most]
    assert cosine.argsort(descending=True)[1] == nearest


def test_use_follows_the_prior_of_each_alpha(uses):
    assert [use.alpha for use in uses] == [0.0, 1.3, 3.0]
    for use in uses:
        rank = np.arange(1, len(use.prior) + 1)
        np.testing.assert_allclose(use.prior, rank**-use.alpha / (rank**-use.alpha).sum(), 1e-5)
        few, many = (np.abs(use.assigned[n] - use.prior).sum() for n in sorted(use.assigned))
        assert many < 0.01 < np.abs(use.own - use.prior).sum()
        assert many <= few < np.abs(use.own - use.prior).sum()
        for mass in (use.own, *use.assigned.values()):
            assert mass.sum() == pytest.approx(1, abs=1e-4)
    first = [(use.strongest == 0).mean() for use in uses]
    assert first == sorted(first)


def test_the_curves_are_prior_and_use(script, activations, uses):
    figure = script.zipf_figure(activations, uses)
    below = [axis for axis in figure.axes if axis.lines]
    assert len(below) == len(uses)
    for axis, use in zip(below, uses):
        curves = {line.get_label(): line.get_ydata() for line in axis.lines}
        np.testing.assert_array_equal(curves["Zipf prior"], use.prior)
        np.testing.assert_array_equal(curves["without Sinkhorn"], use.own)
        np.testing.assert_array_equal(curves["3 iterations"], use.assigned[3])
        np.testing.assert_array_equal(curves["50 iterations"], use.assigned[50])


def test_boxes_of_the_step_hold_their_words(script):
    from matplotlib.patches import FancyBboxPatch

    figure = script.step_figure()
    figure.canvas.draw()
    (axis,) = figure.axes
    boxes = [p.get_window_extent() for p in axis.patches if isinstance(p, FancyBboxPatch)]
    words = [text.get_window_extent() for text in axis.texts]
    assert len(boxes) == 7
    for box in boxes:
        inside = [w for w in words if box.x0 < (w.x0 + w.x1) / 2 < box.x1 and box.overlaps(w)]
        assert len(inside) == 2
        assert all(box.x0 <= w.x0 and w.x1 <= box.x1 for w in inside)
        assert all(box.y0 <= w.y0 and w.y1 <= box.y1 for w in inside)
    for number, word in enumerate(words):
        assert not any(word.overlaps(other) for other in words[:number])


def test_a_saved_picture_keeps_colours_apart(script, tmp_path):
    from PIL import Image

    figure, axes = script.plt.subplots(1, 3)
    colours = script.SEEN, script.HIDDEN, script.OTHER
    for axis, colour in zip(axes, colours):
        axis.imshow(np.full((4, 4, 3), colour, np.uint8))
        axis.axis("off")
    script.save(figure, tmp_path / "a.png")
    picture = Image.open(tmp_path / "a.png").convert("RGB")
    drawn = np.array([colour for _, colour in picture.getcolors(10**6)], float)
    for colour in colours:
        assert np.abs(drawn - colour).max(axis=1).min() <= 8


def test_the_pictures_of_the_page_are_there_and_small():
    page = (ROOT / "docs/concepts.md").read_text()
    shown = re.findall(r"\]\(images/(concepts-\w+\.png)\)", page)
    there = sorted(path.name for path in (ROOT / "docs/images").glob("concepts-*.png"))
    assert sorted(shown) == there and len(there) == 4
    for name in there:
        assert (ROOT / "docs/images" / name).stat().st_size < 150_000
