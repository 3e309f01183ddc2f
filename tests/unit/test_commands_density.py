"""Densities of scans against grids whose answer is known."""

import re
from itertools import product

import numpy as np
import pytest

from dos_plugin import cli
from dos_plugin.commands.density import commonest_height, measure, share_alone


def call(*words):
    return cli.main(["density", *map(str, words)])


def lattice(count, step):
    """count**3 points, in the middle of cells of edge ``step``."""
    return (np.array(list(product(range(count), repeat=3))) + 0.5) * step


def test_a_lattice():
    coord = lattice(8, 0.1)
    fine, right, coarse = (measure([coord], size, 0.4) for size in (0.05, 0.1, 0.2))
    assert (fine.voxels, fine.points_per_voxel, fine.alone) == (512, 1, 1)
    assert (right.voxels, right.points_per_voxel, right.alone) == (512, 1, 0)
    assert (coarse.voxels, coarse.points_per_voxel, coarse.alone) == (64, 8, 0)
    assert right.voxels_per_block == 64 and coarse.voxels_per_block == 8


def test_alone_against_all_pairs():
    rng = np.random.default_rng(0)
    cells = np.unique(rng.integers(-6, 6, (150, 3)), axis=0)
    distance = np.abs(cells[:, None] - cells[None]).max(-1)
    np.fill_diagonal(distance, 99)
    expected = (distance.min(1) > 1).mean()
    assert 0 < expected < 1 and share_alone(cells) == pytest.approx(expected)


def test_scans_of_different_size_count_by_their_points():
    density = measure([lattice(2, 0.1), np.repeat(lattice(2, 0.1), 3, axis=0)], 0.1, 1.0)
    assert density.points_per_voxel == 2 and density.voxels == 8


def test_the_ground():
    rng = np.random.default_rng(0)
    ground = np.column_stack([rng.uniform(-15, 15, (900, 2)), rng.normal(-1.73, 0.01, 900)])
    above = rng.uniform([-15, -15, -1], [15, 15, 3], (900, 3))
    far = np.tile([50.0, 0.0, 9.0], (2000, 1))
    vehicle = np.tile([1.0, 1.0, -0.05], (2000, 1))
    coords = [np.concatenate([ground, above, far, vehicle])]
    assert commonest_height(coords) == pytest.approx(-1.75)
    assert commonest_height([far]) is None


def test_the_table(tmp_path, capsys):
    for number in range(5):
        (tmp_path / f"train/{number}").mkdir(parents=True)
        np.save(tmp_path / f"train/{number}/coord.npy", lattice(8, 0.1).astype(np.float32))
    options = "--scans", 3, "--grid-size", 0.1, 0.2, "--block-size", 0.4
    assert call(tmp_path, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 scans of 512 points; metres:"
    assert lines[1].split() == "x 0.05 (1 %) 0.40 (median) 0.75 (99 %)".split()
    assert "strength: none" in lines
    assert lines[-2].split() == ["0.1", "512", "1.00", "0.0%", "64.0"]
    assert lines[-1].split() == ["0.2", "64", "8.00", "0.0%", "8.0"]


def test_scans_too_long_for_a_grid_size_are_named(tmp_path, capsys):
    for name, far in (("a", 3000.0), ("b", 100.0)):
        (tmp_path / f"train/{name}").mkdir(parents=True)
        np.save(tmp_path / f"train/{name}/coord.npy", np.array([[0, 0, 0], [far, 0, 0]]))
    said = f"{tmp_path / 'train/a'}: 3,000 m long, more than the"
    for sizes, longest in (((0.02, 0.05), "1,311 m .* 0.02 m"), ((0.01, 0.02, 0.1), "1,311 m")):
        assert call(tmp_path, "--grid-size", *sizes) == 0
        out = capsys.readouterr().out
        assert re.search(f"^{re.escape(said)} {longest}", out, re.MULTILINE), out
        assert f"{tmp_path / 'train/b'}" not in out
    assert call(tmp_path, "--grid-size", 0.05) == 0
    assert "m long" not in capsys.readouterr().out
    np.save(tmp_path / "train/a/coord.npy", lattice(8, 500.0))
    assert call(tmp_path, "--grid-size", 1e-4) == 2
    error = capsys.readouterr().err
    assert (
        f"--grid-size: 0.0001, too fine to number the voxels in the box around {tmp_path}" in error
    )


def test_strengths(tmp_path, capsys):
    (tmp_path / "train/a").mkdir(parents=True)
    np.save(tmp_path / "train/a/coord.npy", lattice(2, 0.1))
    np.save(tmp_path / "train/a/strength.npy", np.linspace(0, 1, 101)[:, None])
    assert call(tmp_path) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("strength")]
    assert line.split() == "strength: 0.01 (1 %) 0.50 (median) 0.99 (99 %)".split()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--grid-size", "0"], "expected a number above 0"),
        (["--block-size", "-1"], "expected a number above 0"),
        (["--scans", "0"], "--scans: 0"),
        ([], "there is no scene"),
    ],
)
def test_bad_input(tmp_path, capsys, options, why):
    assert call(tmp_path, *options) == 2
    assert why in capsys.readouterr().err
