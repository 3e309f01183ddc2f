"""Points that are no returns, strengths that are none, points too far away."""

import numpy as np
import pytest

from dos_plugin.commands import density
from dos_plugin.ingest.scan import make_scan
from dos_plugin.ingest.strengths import choose_scale, find_groups, measure
from tests.unit.test_ingest import call, points


def fields_of(rows):
    return {name: rows[:, i] for i, name in enumerate(("x", "y", "z", "intensity"))}


def read(root, name, key="coord"):
    return np.load(root / f"train/{name}/{key}.npy")


def test_missing_returns_at_the_origin(tmp_path, capsys):
    rows = points(60)
    rows[::3, :3] = 0
    rows[1, :2] = 0  # straight above the sensor
    np.save(tmp_path / "a.npy", rows)
    assert call(tmp_path / "a.npy", "--out", tmp_path / "out") == 0
    kept = rows[np.arange(60) % 3 > 0]
    np.testing.assert_array_equal(read(tmp_path / "out", "a"), kept[:, :3])
    np.testing.assert_array_equal(read(tmp_path / "out", "a", "strength"), kept[:, 3:])
    assert "20 (33.33%) points at (0, 0, 0) dropped" in capsys.readouterr().out
    assert call(tmp_path / "a.npy", "--keep-zeros", "--out", tmp_path / "all") == 0
    np.testing.assert_array_equal(read(tmp_path / "all", "a"), rows[:, :3])
    rows[:, :3] = 0
    with pytest.raises(ValueError, match=r"no point but 60 at \(0, 0, 0\)"):
        make_scan(fields_of(rows))


def test_rows_without_a_number_in_any_column_are_dropped_before_their_labels_are_read(tmp_path):
    rows = np.zeros(50, [(n, "<f4") for n in ("x", "y", "z", "intensity", "label")])
    for name, column in zip(("x", "y", "z", "intensity"), points(50).T):
        rows[name] = column
    rows["label"] = np.arange(50) % 4
    for name in rows.dtype.names:
        rows[name][::5] = np.nan
    np.save(tmp_path / "a.npy", rows)
    (tmp_path / "labels").mkdir()
    np.save(tmp_path / "labels/a.npy", rows["label"][:, None])
    good = np.arange(50) % 5 > 0
    for number, words in enumerate((("--label-field", "label"), ("--labels", tmp_path / "labels"))):
        out = tmp_path / str(number)
        assert call(tmp_path / "a.npy", *words, "--out", out) == 0
        np.testing.assert_array_equal(read(out, "a", "segment"), (np.arange(50) % 4)[good])


def test_negative_strengths(tmp_path, capsys):
    rows = points(50, strongest=200.0)
    rows[[4, 9], 3] = -1
    np.save(tmp_path / "a.npy", rows)
    assert call(tmp_path / "a.npy", "--out", tmp_path / "zero") == 0
    assert "2 (4.00%) points with a strength below 0, set to 0" in capsys.readouterr().out
    strength = read(tmp_path / "zero", "a", "strength")
    np.testing.assert_allclose(strength, np.maximum(rows[:, 3:], 0) / 255, rtol=1e-6)
    drop = "--negative-strength", "drop"
    assert call(tmp_path / "a.npy", *drop, "--out", tmp_path / "drop") == 0
    assert "2 (4.00%) points with a strength below 0, dropped" in capsys.readouterr().out
    kept = np.delete(rows, [4, 9], axis=0)
    np.testing.assert_array_equal(read(tmp_path / "drop", "a"), kept[:, :3])


@pytest.mark.parametrize("values", [-2.0, -0.3])
def test_many_negative_strengths_are_another_column(values):
    rows = points(50)
    rows[::2, 3] = values
    with pytest.raises(ValueError, match="25 of 50 below 0"):
        make_scan(fields_of(rows))


def test_all_strengths_are_missing():
    rows = points(50)
    rows[:, 3] = -1
    with pytest.raises(ValueError, match="50 of 50 below 0"):
        make_scan(fields_of(rows))


def test_a_single_huge_strength_does_not_decide(tmp_path, capsys):
    rows = points(300, strongest=120.0)
    rows[7, 3] = 1.2e6
    np.save(tmp_path / "a.npy", rows)
    assert call(tmp_path / "a.npy", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "all divided by 255" in said
    assert "1 (0.33%) points with a strength above 255, set to 1" in said
    expected = np.minimum(rows[:, 3:] / np.float32(255), 1)
    np.testing.assert_array_equal(read(tmp_path / "out", "a", "strength"), expected)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (np.linspace(0, 1, 100), 1),
        (np.arange(256.0), 255),
        (np.repeat([0.0, 1.0, 9.0], [995, 4, 1]), 255),  # bytes of a dark scan
        (np.append(np.linspace(0, 1, 999), 40.0), 1),
        (np.linspace(0, 3000, 500), 65535),
        (np.linspace(0, 1e6, 500), 1e6 * 494 / 499),
    ],
)
def test_the_divisor(values, scale):
    assert choose_scale([measure(values[:, None])]) == pytest.approx(scale)


def test_units_of_strengths():
    unit, byte = np.linspace(0, 0.8, 50)[:, None], np.arange(250.0)[:, None]
    found = {"u": unit, "v": unit / 2, "b": byte, "dark": np.round(byte / 200)}
    groups = find_groups({name: measure(values) for name, values in found.items()})
    assert groups == (["v", "u"], ["b"])  # the dark one can be of either
    counts = {str(n): measure(byte * n) for n in (1, 1.5, 3, 20)}  # raw counts of one sensor
    assert find_groups(counts) is None
    assert find_groups({"a": measure(unit), "b": measure(unit * 2)}) is None
    assert find_groups({}) is None


def test_scans_of_two_units_are_refused(tmp_path, capsys):
    np.save(tmp_path / "unit.npy", points(50))
    np.save(tmp_path / "byte.npy", points(50, strongest=250.0))
    both = tmp_path / "unit.npy", tmp_path / "byte.npy", "--out", tmp_path / "out"
    assert call(*both) == 2
    error = capsys.readouterr().err
    assert f"1 scans up to 0.97 (such as {tmp_path / 'unit.npy'})" in error
    assert f"1 from 245 (such as {tmp_path / 'byte.npy'})" in error
    assert not list((tmp_path / "out").glob("train/*"))
    assert call(*both, "--strength-scale", "255") == 0


def test_far_points(tmp_path, capsys):
    rows = points(50)
    rows[3, :3] = [-5000, 1, 1]
    np.save(tmp_path / "a.npy", rows)
    assert call(tmp_path / "a.npy", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'a.npy'}: 5,0" in said and "more than the 3,277 m" in said
    assert len(read(tmp_path / "out", "a")) == 50
    arguments = density.argparse.ArgumentParser()
    density.add_arguments(arguments)
    assert density.main(arguments.parse_args([str(tmp_path / "out")])) == 0
    assert f"{tmp_path / 'out/train/a'}: 5,0" in capsys.readouterr().out
    near = "--max-range", "100", "--out", tmp_path / "near"
    assert call(tmp_path / "a.npy", *near) == 0
    assert "1 (2.00%) points beyond 100 m dropped" in capsys.readouterr().out
    np.testing.assert_array_equal(read(tmp_path / "near", "a"), np.delete(rows, 3, 0)[:, :3])


def test_max_range_is_a_distance():
    rows = np.array([[3, 4, 0, 0.1], [3, 4, 1, 0.2], [0, 0, 4.9, 0.3]], np.float32)
    scan = make_scan(fields_of(rows), max_range=5.0)
    assert scan.far == 1 and scan.strength[:, 0].tolist() == pytest.approx([0.1, 0.3])
    with pytest.raises(ValueError, match="no point within --max-range 1 m"):
        make_scan(fields_of(rows), max_range=1.0)
