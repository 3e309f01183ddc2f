"""The page with scans to turn around: what is written into it is what was given."""

from dataclasses import replace

import numpy as np
import pytest

from dos_plugin.drawing.viewer import View, kept_features, quantised, write_view
from tests.viewer_pages import read_page, street


def test_page_holds_the_points_and_labels_it_was_given(tmp_path):
    views = [street(0, name="one"), street(1, 3000, name="two")]
    size = write_view(tmp_path / "v.html", views, ["road", "car"], title="a </script> b")
    assert size == (tmp_path / "v.html").stat().st_size
    header, scans = read_page(tmp_path / "v.html")
    assert header["title"] == "a </script> b"
    modes = {mode["key"]: mode for mode in header["modes"]}
    assert list(modes) == ["label", "strength", "height", "components", "prototype"]
    names = modes["label"]["names"]
    assert names == ["unlabelled", "road", "car", "class 2"]
    ids = {"unlabelled": -1, "road": 0, "car": 1, "class 2": 2}
    for view, facts, arrays in zip(views, header["scans"], scans):
        assert facts["count"] == facts["total"] == len(view.coord)
        for key, given in (("coord", view.coord), ("strength", view.strength)):
            number = arrays[key].reshape(len(given), -1).astype(np.float64)
            found = facts[key]["low"] + number * facts[key]["step"]
            span = np.ptp(given.reshape(len(given), -1), axis=0)
            assert (np.abs(found - given.reshape(len(given), -1)) <= span / 65535).all()
        assert [ids[names[k]] for k in arrays["label"]] == view.segment.tolist()
        np.testing.assert_array_equal(arrays["inverse"], view.inverse)
        found = [modes["prototype"]["names"][k] for k in arrays["prototype"]]
        assert found == [f"prototype {k}" for k in view.prototype]


def test_cosines_in_the_page_are_those_of_the_features(tmp_path):
    views = [street(0), street(1)]
    write_view(tmp_path / "v.html", views)
    header, scans = read_page(tmp_path / "v.html")
    assert (header["features"]["channels"], header["features"]["kept"]) == (40, 40)

    def cosines(parts):
        unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in parts]
        return unit[0] @ unit[1].T

    true = cosines([view.features.astype(np.float64) for view in views])
    found = cosines([arrays["features"].astype(np.float64) for arrays in scans])
    assert true.std() > 0.02  # else every answer would do
    assert np.abs(found - true).max() < 0.02
    assert np.abs(found - true).mean() < 0.003


def test_cosines_are_kept_by_fewer_channels_that_hold_the_length():
    random = np.random.default_rng(0)
    features = [random.normal(size=(n, 80)) * 0.9 ** np.arange(80) for n in (200, 90)]
    small, share = kept_features(features, 20)
    assert [rows.shape for rows in small] == [(200, 20), (90, 20)]
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in features]
    kept = [rows / np.linalg.norm(rows.astype(float), axis=1, keepdims=True) for rows in small]
    error = np.abs(unit[0] @ unit[1].T - kept[0] @ kept[1].T)
    assert 0.9 < share < 1 and error.mean() < 0.02


def test_few_channels_are_kept_whole():
    random = np.random.default_rng(0)
    features = [random.normal(size=(50, 6)), random.normal(size=(9, 6)) * [1e6]]
    small, share = kept_features(features)
    assert [rows.shape for rows in small] == [(50, 6), (9, 6)]
    assert share == pytest.approx(1)
    with pytest.raises(ValueError, match="NaN or infinite"):
        kept_features([features[0] * np.nan])


def test_numbers_that_are_all_the_same_come_back(tmp_path):
    number, low, step = quantised(np.full((3, 1), 7.25))
    np.testing.assert_array_equal(low + step * number, np.full((3, 1), 7.25))
    write_view(tmp_path / "v.html", [View("one point", np.zeros((1, 3)))])
    assert read_page(tmp_path / "v.html")[0]["scans"][0]["count"] == 1


def test_large_scans_are_thinned_with_all_that_belongs_to_a_point(tmp_path):
    view = street()
    write_view(tmp_path / "v.html", [view], most_points=500)
    header, (arrays,) = read_page(tmp_path / "v.html")
    facts = header["scans"][0]
    assert (facts["count"], facts["total"]) == (500, 4000)
    assert len(arrays["features"]) == len(np.unique(arrays["inverse"])) <= 500
    coord = facts["coord"]["low"] + arrays["coord"] * np.array(facts["coord"]["step"])
    nearest = np.linalg.norm(coord[:, None] - view.coord[None], axis=2).argmin(axis=1)
    assert len(np.unique(nearest)) == 500
    modes = {mode["key"]: mode for mode in header["modes"]}
    names = np.array(modes["label"]["names"])[arrays["label"]]
    wanted = ["unlabelled" if k < 0 else f"class {k}" for k in view.segment[nearest]]
    assert names.tolist() == wanted
    prototypes = np.array(modes["prototype"]["names"])[arrays["prototype"][arrays["inverse"]]]
    wanted = view.prototype[view.inverse[nearest]]
    assert prototypes.tolist() == [f"prototype {k}" for k in wanted]


def test_without_features_only_what_is_there_is_offered(tmp_path):
    coord = street().coord
    write_view(tmp_path / "v.html", [View("bare", coord), View("rgb", coord, color=coord * 0 + 9)])
    header, scans = read_page(tmp_path / "v.html")
    assert [mode["key"] for mode in header["modes"]] == ["color", "height"]
    assert "features" not in header
    assert (scans[1]["color"] == 9).all() and (scans[0]["color"] != 9).all()


def test_what_does_not_fit_is_an_error_and_leaves_no_file(tmp_path):
    view = street()
    with pytest.raises(ValueError, match=r"street: strength of 10 rows, expected 4000"):
        replace(view, strength=np.ones(10))
    with pytest.raises(ValueError, match="street: features of 2000 rows, expected 4000"):
        replace(view, inverse=None, prototype=None)
    with pytest.raises(ValueError, match="coord has NaN or infinite"):
        replace(view, coord=view.coord * np.nan)
    with pytest.raises(ValueError, match="features of some scans only"):
        write_view(tmp_path / "v.html", [view, View("bare", view.coord)])
    with pytest.raises(ValueError, match="at least one scan"):
        write_view(tmp_path / "v.html", [])
    assert not list(tmp_path.iterdir())
