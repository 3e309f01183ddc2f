"""The page with scans in a real browser: headless Chromium, WebGL in software."""

import io

import numpy as np
import pytest
from PIL import Image

from dos_plugin.drawing.render import BACKGROUND
from dos_plugin.drawing.viewer import View, write_view
from tests.browser import Browser, find_chromium
from tests.viewer_pages import street

pytestmark = pytest.mark.skipif(
    find_chromium() is None,
    reason="no Chromium on the path (apt-get install chromium, or CHROMIUM=...)",
)
READY = "window.viewer && viewer.ready"
# After the next picture.
DRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
HEADER = 60  # pixels above the scans, at most


@pytest.fixture(scope="module")
def browser():
    with Browser(900, 560) as opened:
        yield opened


def pixels(browser):
    """The scans' part of the page, (H, W, 3)."""
    browser.run(DRAWN)
    return np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("RGB"))[HEADER:]


def drawn(picture):
    """Share of pixels that are not background."""
    return (np.abs(picture.astype(int) - BACKGROUND).max(axis=2) > 12).mean()


def test_two_scans_in_all_colours_and_the_points_like_a_clicked_one(browser, tmp_path):
    views = [street(0, name="one <i>"), street(1, name="two")]
    write_view(tmp_path / "v.html", views, ["road", "car", "pole"], title="two streets")
    browser.open(tmp_path / "v.html", READY)
    first = pixels(browser)
    assert drawn(first[:, :450]) > 0.02 and drawn(first[:, 450:]) > 0.02

    # Every colour gives another picture.
    keys = browser.run("viewer.modes.map((mode) => mode.key)")
    assert keys == ["label", "strength", "height", "components", "prototype", "similarity"]
    seen = [first]
    for number in "2345":
        browser.press(number)
        picture = pixels(browser)
        assert all((picture != other).any(axis=2).mean() > 0.01 for other in seen), number
        seen.append(picture)

    # A click on a point of the second class: what its features say, in both scans.
    wanted = int(np.flatnonzero(views[0].segment == 1)[5])
    x, y = browser.run(f"viewer.panes[0].project(position(scans[0], {wanted})).slice(0, 2)")
    left, top = browser.run(
        "(({left, top}) => [left, top])(panes[0].canvas.getBoundingClientRect())"
    )
    browser.click(left + x, top + y)
    browser.wait("viewer.state.picked")
    assert browser.run("viewer.state.mode.key") == "similarity"
    picture = pixels(browser)
    assert (picture != seen[-1]).any(axis=2).mean() > 0.01
    point = browser.run("viewer.state.picked.point")
    assert views[0].segment[point] == 1  # it or one before it
    one = views[0].features[views[0].inverse[point]].astype(np.float64)
    for index, view in enumerate(views):
        rows = view.features.astype(np.float64)
        true = rows @ one / (np.linalg.norm(rows, axis=1) * np.linalg.norm(one))
        found = browser.run(f"Array.from(viewer.panes[{index}].scan.cosines)")
        assert np.abs(found - true).max() < 0.02
    best = browser.run("viewer.panes[1].scan.best")
    assert views[1].segment[best] == 1
    browser.press("Escape")
    assert browser.run("viewer.state.mode.key") == "label"
    assert (pixels(browser) == first).all(axis=2).mean() > 0.99

    # Turning, and the class that the legend is clicked for.
    browser.run("viewer.panes[0].turn(0.5, 0)")
    turned = pixels(browser)
    assert (turned[:, 450:] != first[:, 450:]).any(axis=2).mean() > 0.01  # they are linked
    browser.press("r")
    assert (pixels(browser) == first).all(axis=2).mean() > 0.99
    browser.run(
        "[...document.querySelectorAll('.kind')].find((b) => b.innerText.includes('car')).click()"
    )
    assert (pixels(browser) != first).any(axis=2).mean() > 0.01

    # What moves may be drawn with fewer points; at rest all of them are.
    browser.press("r")
    browser.press("1")
    browser.run(
        "window.steps = []; every = 16; const draw = panes[0].draw;"
        "panes[0].draw = (step) => { steps.push(step); draw.call(panes[0], step); };"
        "follow(panes[0])"
    )
    browser.wait("steps.length > 1 && steps.at(-1) === 1")
    assert browser.run("Math.max(...steps)") >= 8

    assert browser.console == []
    assert all(url.startswith("file:") for url in browser.requests)


def test_a_bare_scan_and_a_narrow_window(browser, tmp_path):
    write_view(tmp_path / "v.html", [View("bare", street().coord)] * 3)
    browser.open(tmp_path / "v.html", READY)
    assert drawn(pixels(browser)) > 0.02
    assert browser.run("viewer.modes.map((mode) => mode.key)") == ["height"]
    x, y = browser.run("[innerWidth / 4, innerHeight / 2]")
    browser.click(x, y)
    assert browser.run("viewer.state.mode.key") == "height"
    assert browser.run("document.querySelectorAll('select').length") == 2
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.console == []
