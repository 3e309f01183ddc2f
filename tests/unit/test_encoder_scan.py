"""Scans out of arrays, files and folders: values, and what is said of bad ones."""

import numpy as np
import pytest
import torch

from dos_plugin.encoder.scan import from_arrays, read_scan

RNG = np.random.default_rng(0)
COORD = RNG.uniform(-20, 20, (50, 3)).astype(np.float32)
STRENGTH = RNG.uniform(0, 1, 50).astype(np.float32)


def write_bin(path, strength, coord=COORD):
    np.hstack([coord, np.asarray(strength)[:, None]]).astype("<f4").tofile(path)
    return path


def write_ply(path, **columns):
    names = list(columns)
    header = [f"property float {name}" for name in names]
    rows = np.stack([columns[name] for name in names], 1)
    head = ["ply", "format ascii 1.0", f"element vertex {len(rows)}", *header, "end_header"]
    lines = [" ".join(repr(float(value)) for value in row) for row in rows]
    path.write_text("\n".join([*head, *lines]) + "\n")
    return path


def test_arrays_lists_and_tensors_give_the_same():
    scans = [
        from_arrays(COORD, STRENGTH, segment=np.arange(50)),
        from_arrays(COORD.tolist(), STRENGTH[:, None].tolist(), segment=list(range(50))),
        from_arrays(torch.tensor(COORD), torch.tensor(STRENGTH), segment=torch.arange(50)),
    ]
    for scan in scans:
        np.testing.assert_array_equal(scan.coord, COORD)
        np.testing.assert_array_equal(scan.strength, STRENGTH[:, None])
        np.testing.assert_array_equal(scan.segment, np.arange(50))
        assert scan.coord.dtype == scan.strength.dtype == np.float32
        assert len(scan) == 50 and scan.color is None and scan.normal is None
        assert "50 points" in repr(scan) and "coord, strength, segment" in repr(scan)


def test_arrays_are_not_changed_and_scales_are_explicit():
    strength = 255 * STRENGTH
    before = strength.copy()
    scan = from_arrays(COORD, strength, strength_scale=255)
    np.testing.assert_allclose(scan.strength[:, 0], STRENGTH, rtol=1e-6)
    np.testing.assert_array_equal(strength, before)
    assert "divided by 255" in repr(scan)


@pytest.mark.parametrize(
    "arrays, message",
    [
        (dict(coord=COORD[:, :2]), r"coord of scan: has shape \(50, 2\), expected \(N, 3\) metres"),
        (dict(coord=np.zeros((0, 3))), "coord of scan: no point"),
        (dict(coord=COORD * np.nan), "50 of 50 points have NaN or infinite values, .* row 0"),
        (dict(coord=COORD + 5e5), "coord of scan: up to 5e.05 m, expected at most 10000"),
        (dict(coord=[["a"] * 3]), "coord of scan: of type <U1, expected numbers"),
        (dict(strength=STRENGTH[:49]), r"strength of scan: has shape \(49,\), expected \(50, 1\)"),
        (dict(strength=np.full(50, np.inf)), "strength of scan: 50 of 50 points"),
        (dict(strength=STRENGTH, strength_scale=0), "strength_scale: 0, expected a number above 0"),
        (dict(color=np.full((50, 3), 0.5)), "color of scan: float64 .* multiply by 255"),
        (dict(color=np.full((50, 3), 300)), "300, expected 0 to 255$"),
        (dict(color=STRENGTH), r"color of scan: has shape \(50,\), expected \(50, 3\)"),
        (dict(segment=STRENGTH), "segment of scan: labels that are no whole numbers"),
    ],
)
def test_bad_arrays_are_named(arrays, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(**{"coord": COORD, **arrays})


def test_a_file_keeps_the_rows_of_its_points(tmp_path):
    coord = COORD.copy()
    coord[[3, 7]] = np.nan
    scan = read_scan(write_bin(tmp_path / "a.bin", STRENGTH, coord))
    kept = np.delete(np.arange(50), [3, 7])
    np.testing.assert_array_equal(scan.row, kept)
    np.testing.assert_array_equal(scan.coord, COORD[kept])
    np.testing.assert_array_equal(scan.strength[:, 0], STRENGTH[kept])


def test_normals_and_colours_of_a_file(tmp_path):
    normal = RNG.normal(size=(50, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    columns = dict(zip("xyz", COORD.T)) | dict(zip(("nx", "ny", "nz"), normal.T))
    columns |= dict(red=np.arange(50), green=np.arange(50) + 1, blue=np.arange(50) + 2)
    columns["y"] = np.where(np.arange(50) == 9, np.nan, columns["y"])
    scan = read_scan(write_ply(tmp_path / "a.ply", **columns))
    kept = np.delete(np.arange(50), 9)
    np.testing.assert_allclose(scan.normal, normal[kept], atol=1e-6)
    np.testing.assert_array_equal(scan.color[:, 2], kept + 2)
    assert scan.strength is None


def test_strengths_of_files(tmp_path, caplog):
    scan = read_scan(write_bin(tmp_path / "a.bin", STRENGTH))
    assert scan.strength_scale == 1 and not caplog.records
    scan = read_scan(write_bin(tmp_path / "b.bin", 200 * STRENGTH))
    np.testing.assert_allclose(scan.strength[:, 0], STRENGTH * 200 / 255, rtol=1e-6)
    assert "b.bin: strengths up to" in caplog.text and "divided by 255, 0 above" in caplog.text
    loud = write_bin(tmp_path / "c.bin", 3000 * STRENGTH)
    with pytest.raises(ValueError, match=r"c.bin: strengths up to 2\d+.*give strength_scale"):
        read_scan(loud)
    assert read_scan(loud, strength_scale=3000).strength.max() <= 1
    # nuScenes' are 0 to 255 whatever a dark scan shows.
    rows = np.hstack([COORD, STRENGTH[:, None], np.zeros((50, 1))]).astype("<f4")
    rows.tofile(tmp_path / "d.pcd.bin")
    np.testing.assert_allclose(
        read_scan(tmp_path / "d.pcd.bin").strength[:, 0], STRENGTH / 255, rtol=1e-6
    )


def test_single_huge_strengths_decide_nothing(tmp_path, caplog):
    coord, strength = RNG.uniform(-20, 20, (5000, 3)), 200 * RNG.uniform(0, 1, 5000)
    strength[17] = 1.2e6
    scan = read_scan(write_bin(tmp_path / "a.bin", strength, coord))
    assert scan.strength_scale == 255 and "divided by 255, 1 above that count as 1" in caplog.text
    expected = np.where(np.arange(5000) == 17, 1, strength / 255)
    np.testing.assert_allclose(scan.strength[:, 0], expected, rtol=1e-6)
    weak = read_scan(write_bin(tmp_path / "b.bin", strength / 200, coord))
    assert weak.strength_scale == 1 and weak.strength.max() == 1


def test_a_scene_folder_of_the_host(tmp_path):
    color = RNG.integers(0, 256, (50, 3)).astype(np.uint8)
    for key, array in dict(coord=COORD, color=color, segment20=np.arange(50) - 1).items():
        np.save(tmp_path / f"{key}.npy", array)
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.coord, COORD)
    np.testing.assert_array_equal(scan.color, color)
    np.testing.assert_array_equal(scan.segment, np.arange(50) - 1)
    (tmp_path / "color.npy").write_bytes(b"x")
    with pytest.raises(ValueError, match="color.npy: cannot be read"):
        read_scan(tmp_path)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.bin: no such scan file"):
        read_scan(tmp_path / "none.bin")
    with pytest.raises(ValueError, match="a folder without coord.npy"):
        read_scan(tmp_path)
    (tmp_path / "cut.ply").write_text("ply\n")
    with pytest.raises(ValueError, match=r"cut.ply: cannot be read as ply"):
        read_scan(tmp_path / "cut.ply")


def test_plain_numbers_whose_columns_are_named(tmp_path):
    """Six columns as Waymo's in KITTI's form, which are not told apart without names."""
    rows = np.random.default_rng(0).uniform(0, 1, (48, 6)).astype(np.float32)
    file = tmp_path / "waymo.bin"
    rows.tofile(file)
    with pytest.raises(ValueError, match="--columns"):
        read_scan(file)
    names = "x y z intensity elongation time".split()
    scan = read_scan(file, columns=names)
    assert np.array_equal(scan.coord, rows[:, :3]) and np.array_equal(scan.strength, rows[:, 3:4])
    rows.astype(np.float64).tofile(file)
    assert np.allclose(read_scan(file, columns=names, dtype="float64").coord, rows[:, :3])
