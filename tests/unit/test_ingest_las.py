"""Maps: offsets, and tiles against a selection point by point."""

import laspy
import numpy as np
import pytest

from dos_plugin.ingest.readers import read_fields
from dos_plugin.ingest.tiles import cut
from tests.unit.test_ingest import call

ORIGIN = np.array([442_000.0, 5_411_000.0, 200.0])
COUNT = 6_000


@pytest.fixture(scope="module")
def town():
    """Points of a slope, (N, 3) float64 metres in whole millimetres, and their classes."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform(0, [160, 90, 0], (COUNT, 3))
    kind = rng.choice([2, 5, 6], COUNT)
    xyz[:, 2] = 0.1 * xyz[:, 0] + np.where(kind == 2, 0, rng.uniform(0, 9, COUNT))
    return xyz.round(3) + ORIGIN, kind


@pytest.fixture(scope="module", params=["las", "laz"])
def file(request, town, tmp_path_factory):
    xyz, kind = town
    header = laspy.LasHeader(point_format=7, version="1.4")
    header.scales, header.offsets = [0.001] * 3, ORIGIN - 1000
    las = laspy.LasData(header)
    las.x, las.y, las.z = xyz.T
    las.intensity = np.arange(COUNT) * 10
    las.classification = kind
    path = tmp_path_factory.mktemp("maps") / f"town.{request.param}"
    las.write(path)
    return path


def read(root):
    return {
        folder.name: {path.stem: np.load(path) for path in folder.iterdir()}
        for folder in sorted((root / "train").iterdir())
    }


def test_map_coordinates_keep_their_millimetres(file, town):
    xyz, kind = town
    fields = read_fields(file, "las")
    assert list(fields) == ["x", "y", "z", "intensity", "classification"]  # its colours are black
    found = np.stack([fields[axis] for axis in "xyz"], 1)
    ground = np.median(xyz[kind == 2, 2])
    np.testing.assert_allclose(found[:, 2], xyz[:, 2] - ground, atol=1e-6)
    shift = found[:, :2] - xyz[:, :2]
    np.testing.assert_allclose(shift, shift[:1].repeat(COUNT, 0), atol=1e-6)
    assert np.allclose(shift[0], np.round(shift[0]))  # whole metres
    assert np.abs(found[:, :2]).max() < 81
    np.testing.assert_array_equal(fields["intensity"], np.arange(COUNT) * 10)


def test_the_map_as_one_scene(file, tmp_path):
    assert call(file, "--label-field", "classification", "--out", tmp_path) == 0
    scene = read(tmp_path)["town"]
    np.testing.assert_allclose(np.ptp(scene["coord"], 0), [160, 90, 25], atol=1.5)
    np.testing.assert_allclose(scene["strength"][:, 0], np.arange(COUNT) * 10 / 65535, rtol=1e-6)
    assert sorted(np.unique(scene["segment"])) == [2, 5, 6]


@pytest.mark.parametrize(("overlap", "shape"), [(0, (2, 2)), (10, (3, 2))])
def test_tiles(file, town, tmp_path, overlap, shape):
    xyz, kind = town
    tiling = "--tile", "80", "--overlap", overlap, "--label-field", "classification"
    assert call(file, *tiling, "--out", tmp_path) == 0
    scenes = read(tmp_path)
    names = [f"town-x{i}-y{j}" for i in range(shape[0]) for j in range(shape[1])]
    assert list(scenes) == names
    low, step = xyz.min(0), 80 - overlap
    total = 0
    for name in names:
        i, j = (int(part[1:]) for part in name.split("-")[1:])
        corner = low[:2] + [i * step, j * step]
        inside = ((xyz[:, :2] >= corner) & (xyz[:, :2] < corner + 80)).all(1)
        total += inside.sum()
        coord = scenes[name]["coord"]
        np.testing.assert_allclose(coord[:, :2], xyz[inside, :2] - corner - 40, atol=2e-5)
        np.testing.assert_array_equal(scenes[name]["segment"], kind[inside])
        ground = coord[kind[inside] == 2, 2]
        if len(ground) >= 100:  # on the slope, yet with its ground at 0
            assert abs(np.median(ground)) < 1e-4
        np.testing.assert_allclose(np.diff(coord[:, 2]), np.diff(xyz[inside, 2]), atol=2e-5)
    assert total == COUNT if overlap == 0 else total > COUNT


def test_tiles_of_other_files_and_with_label_files(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.uniform(0, [100, 30, 5, 1], (2000, 4)) + [500, 0, 0, 0]
    np.save(tmp_path / "a.npy", rows)
    (tmp_path / "labels").mkdir()
    np.save(tmp_path / "labels/a.npy", np.arange(2000) % 7)
    words = "--tile", "50", "--labels", tmp_path / "labels", "--out", tmp_path / "out"
    assert call(tmp_path / "a.npy", *words) == 0
    scenes = read(tmp_path / "out")
    assert list(scenes) == ["a-x0-y0", "a-x1-y0"]
    left = rows[:, 0] < rows[:, 0].min() + 50
    np.testing.assert_array_equal(scenes["a-x0-y0"]["segment"], (np.arange(2000) % 7)[left])
    assert np.abs(scenes["a-x1-y0"]["coord"][:, :2]).max() <= 25


def test_the_ground_of_a_tile_that_shows_little_of_it():
    rng = np.random.default_rng(0)
    fields = {"x": rng.uniform(0, 20, 400), "y": rng.uniform(0, 10, 400), "z": np.full(400, 7.0)}
    fields["classification"] = np.where(fields["x"] < 10, 2, 6)  # a roof on the right
    fields["z"] += np.where(fields["classification"] == 2, 0, 5)
    tiles = dict(cut(fields, 10, 0))
    assert set(tiles["x0-y0"]["z"]) == {0.0} and set(tiles["x1-y0"]["z"]) == {5.0}


def test_a_broken_map(file, tmp_path, capsys):
    broken = tmp_path / file.name
    broken.write_bytes(file.read_bytes()[:-20_000])
    assert call(broken, "--out", tmp_path / "out") == 2
    assert f"{broken}: cannot be read as las: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--tile", "0"], "--tile: 0.0, expected a number above 0"),
        (["--tile", "20", "--overlap", "20"], "--overlap: 20.0, expected 0 or more and less than"),
        (["--overlap", "5"], "--overlap: 5.0, but no --tile"),
    ],
)
def test_bad_tiles(file, tmp_path, capsys, words, why):
    assert call(file, *words, "--out", tmp_path / "out") == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(("edge", "overlap"), [(10, 0), (10, 4), (10, 9.5), (7.5, 2)])
def test_every_tile_that_holds_a_point_is_there(edge, overlap):
    """Against all tiles of the box, one after the other."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform(0, 60, (40, 3)).round(1)
    xyz[0, 0] = np.nan
    tiles = dict(cut(dict(zip("xyz", xyz.T)), edge, overlap))
    low, step = np.nanmin(xyz, 0), edge - overlap
    counts = [int(np.ceil((size - overlap) / step)) for size in np.nanmax(xyz, 0)[:2] - low[:2]]
    expected = {}
    for i, j in np.ndindex(*counts):
        inside = np.ones(len(xyz), bool)
        for axis, at in enumerate((i, j)):
            start = xyz[:, axis] - low[axis] - at * step
            inside &= (start >= 0) & (start <= edge if at == counts[axis] - 1 else start < edge)
        if inside.any():
            expected[f"x{i}-y{j}"] = inside.sum()
    assert {name: len(tile["x"]) for name, tile in tiles.items()} == expected
    assert list(tiles) == list(expected)


def test_a_map_with_a_point_far_away():
    """Tiles without a point take no time; what is no place on Earth is told."""
    x = np.array([0.0, 1.0, 9e6])
    tiles = dict(cut(dict(x=x, y=x, z=x), 2, 0.5))
    assert sorted(len(tile["x"]) for tile in tiles.values())[-1] == 2
    x[2] = 1e30
    with pytest.raises(ValueError, match=r"a map of 1e\+30 m, expected at most 1e\+07"):
        next(cut(dict(x=x, y=x, z=x), 1, 0.5))
