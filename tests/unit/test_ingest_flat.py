"""Plain numbers: the reading that can be a scan is found, or the file is refused."""

import numpy as np
import pytest

from dos_plugin.ingest.fields import pick
from dos_plugin.ingest.flat import read_npy, tell_apart
from dos_plugin.ingest.readers import read_fields
from tests.unit.test_ingest import call

COUNT = 720  # so the sizes of all these files divide in many ways


def scan(count=COUNT, seed=0):
    """x y z intensity ring time elongation of a scan on a street, float64."""
    rng = np.random.default_rng(seed)
    angle, far = rng.uniform(0, 2 * np.pi, count), rng.exponential(12, count) + 2
    z = np.where(rng.random(count) < 0.6, -1.7 + rng.normal(0, 0.03, count), rng.uniform(-1.7, 3))
    columns = far * np.cos(angle), far * np.sin(angle), z, rng.beta(1, 4, count)
    ring, time = rng.integers(0, 32, count), np.arange(count) * 1e-5
    return np.stack([*columns, ring, time, rng.uniform(0, 1.3, count)], 1)


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
@pytest.mark.parametrize(
    ("columns", "count"),
    [(c, n) for c in (3, 4, 5) for n in (120, COUNT, 24_000)] + [(4, 48), (5, 48)],
)
def test_columns_are_told_apart(dtype, columns, count):
    rows = scan(count)[:, :columns]
    rows[:, 3:4] *= 255
    found = tell_apart(rows.astype(dtype).tobytes())
    assert found == (columns, {"<f4": "float32", "<f8": "float64"}[dtype])


def colors(bright):
    return np.random.default_rng(3).integers(0, 256, (COUNT, 3)) / (255 if bright == 1 else 1)


@pytest.mark.parametrize(
    "rows",
    [
        np.hstack([scan()[:, :3] / 10, colors(1)]),  # a room, as SUN RGB-D is stored
        np.hstack([scan()[:, :3] / 10, colors(255)]),  # as ScanNet is
        scan()[:, [0, 1, 2, 3, 6, 5]],  # as Waymo is in KITTI's form
        scan(),
        np.hstack([scan(), scan(seed=1)[:, :1]]),
    ],
)
@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_more_columns_need_names(rows, dtype):
    with pytest.raises(ValueError, match=rf"^{rows.shape[1]} columns of float.*--columns"):
        tell_apart(rows.astype(dtype).tobytes())


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).integers(0, 256, 7200, np.uint8),  # a picture
        np.random.default_rng(0).integers(0, 32, 7200).astype(np.uint8),  # labels of nuScenes
        np.random.default_rng(0).integers(0, 60, 7200).astype("<u4") | 7 << 16,  # of SemanticKITTI
        np.zeros(7200, np.uint8),
        np.random.default_rng(0).normal(0, 10, 7200).astype("<f4"),  # columns that do not differ
        scan().astype("<f4")[:, :3] * 1e6,
    ],
)
def test_what_is_no_scan_is_refused(values):
    with pytest.raises(ValueError, match=r"no plausible scan .*--columns x,y,z,intensity"):
        tell_apart(values.tobytes())


def test_a_size_that_fits_nothing():
    with pytest.raises(ValueError, match="315 bytes is not a multiple of float32 or float64"):
        tell_apart(scan().astype("<f4").tobytes()[:315])


def test_names_and_type_of_columns(tmp_path, capsys):
    rows = scan()[:, [0, 1, 2, 3, 6, 5]]
    for dtype in ("float32", "float64"):
        rows.astype(dtype).tofile(tmp_path / "a.bin")
        words = "--columns", "x,y,z,intensity,_,time", "--dtype", dtype
        out = tmp_path / dtype
        assert call(tmp_path / "a.bin", *words, "--out", out) == 0
        coord = np.load(out / "train/a/coord.npy")
        strength = np.load(out / "train/a/strength.npy")
        np.testing.assert_array_equal(coord, rows[:, :3].astype(np.float32))
        np.testing.assert_array_equal(strength, rows[:, 3:4].astype(np.float32))
    assert call(tmp_path / "a.bin", "--columns", "x,y,z,i,a,b,c", "--out", out) == 2
    assert "34,560 bytes is not a multiple of 28" in capsys.readouterr().err
    assert call(tmp_path / "a.bin", "--out", tmp_path / "none") == 2
    assert "6 columns of float64, it seems: name them" in capsys.readouterr().err


def test_colours_by_names_of_columns(tmp_path):
    np.hstack([scan()[:, :3], colors(1)]).astype("<f4").tofile(tmp_path / "a.bin")
    words = "--columns", "x,y,z,r,g,b", "--out", tmp_path / "out"
    assert call(tmp_path / "a.bin", *words) == 0
    found = np.load(tmp_path / "out/train/a/color.npy")
    np.testing.assert_array_equal(found, np.round(colors(255)).astype(np.uint8))


@pytest.mark.parametrize("names", ["x,y", "x,y,z,z", "x,y,,z", "a,b,c"])
def test_bad_names_of_columns(tmp_path, capsys, names):
    with pytest.raises(SystemExit):
        call(tmp_path / "a.bin", "--columns", names, "--out", tmp_path / "out")
    assert "expected names such as x,y,z,intensity" in capsys.readouterr().err


def test_a_npy_that_is_called_bin(tmp_path):
    with (tmp_path / "a.bin").open("wb") as file:
        np.save(file, scan()[:, :4])
    fields = read_fields(tmp_path / "a.bin", "bin")
    np.testing.assert_array_equal(fields["x"], scan()[:, 0])
    assert list(fields) == ["x", "y", "z", "3"]


def test_organised_arrays(tmp_path):
    np.save(tmp_path / "a.npy", scan()[:, :4].reshape(16, 45, 4))
    np.testing.assert_array_equal(read_fields(tmp_path / "a.npy", "npy")["3"], scan()[:, 3])


@pytest.mark.parametrize(
    "arrays",
    [
        dict(points=scan()[:, :3], intensity=scan()[:, 3], color=colors(255)),
        dict(xyz=scan()[:, :3], rgb=colors(255), strength=scan()[:, 3:4]),
        dict(points=np.hstack([scan()[:, :4]]), colors=colors(255), pose=np.eye(4)),
        dict(
            **{name: scan()[:, i] for i, name in enumerate("xyz")},
            **dict(intensity=scan()[:, 3], color=colors(255)),
        ),
    ],
)
def test_npz(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    assert call(tmp_path / "a.npz", "--out", tmp_path / "out") == 0
    read = {p.stem: np.load(p) for p in (tmp_path / "out/train/a").iterdir()}
    np.testing.assert_array_equal(read["coord"], scan()[:, :3].astype(np.float32))
    np.testing.assert_array_equal(read["strength"], scan()[:, 3:4].astype(np.float32))
    np.testing.assert_array_equal(read["color"], colors(255))


def test_npz_without_points(tmp_path):
    np.savez(tmp_path / "a.npz", pose=np.eye(2))
    with pytest.raises(ValueError, match=r"no array of points among pose \(2, 2\)"):
        read_fields(tmp_path / "a.npz", "npz")


@pytest.mark.parametrize("name", ["cloud", "Points", "points"])
def test_the_points_of_an_npz_are_not_its_pose(tmp_path, name):
    rows = scan()[:, :3]
    arrays = {
        "pose": np.eye(4),
        "meta": np.array({"sensor": "roof"}, dtype=object),
        "image": np.zeros((40, 50, 3), np.uint8),
        "normals": np.ones_like(rows),
        name: rows,
        "pcloud_attr.reflectance": np.arange(COUNT),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    fields = read_fields(tmp_path / "a.npz", "npz")
    np.testing.assert_array_equal(np.stack([fields[axis] for axis in "xyz"], 1), rows)
    np.testing.assert_array_equal(pick(fields, "reflectance"), np.arange(COUNT))


def test_an_npz_of_two_clouds_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", first=scan()[:, :3], last=scan()[:, :4])
    with pytest.raises(ValueError, match=r"last \(720, 4\); call theirs 'points'"):
        read_fields(tmp_path / "a.npz", "npz")


@pytest.mark.parametrize(
    ("array", "why"),
    [(np.ones((4, 6, 3), np.uint8), "a picture, not points"), (np.eye(4), "a .4, 4. pose")],
)
def test_arrays_that_are_no_points(tmp_path, array, why):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=why):
        read_npy(tmp_path / "a.npy")
