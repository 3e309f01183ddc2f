"""Formats of scan files: each gives the same arrays for the same points."""

import sys

import numpy as np
import pyarrow
import pytest
from plyfile import PlyData, PlyElement
from pyarrow import feather
from pypcd4 import Encoding, PointCloud

from dos_plugin.cli import main
from tests.unit.test_ingest import call, tree

COUNT = 60


@pytest.fixture
def rows():
    """x y z (metres), intensity in [0, 1], colours."""
    rng = np.random.default_rng(0)
    dtype = [(name, "<f4") for name in ("x", "y", "z", "intensity")]
    dtype += [(name, "u1") for name in ("red", "green", "blue")]
    rows = np.zeros(COUNT, dtype)
    for name in ("x", "y", "z"):
        rows[name] = rng.uniform(-40, 40, COUNT).round(3)
    rows["intensity"] = rng.uniform(0, 1, COUNT).round(3)
    for name in ("red", "green", "blue"):
        rows[name] = rng.integers(0, 256, COUNT)
    return rows


def stack(rows, *names):
    return np.stack([rows[name] for name in names], 1)


def read(root, name="scan"):
    folder = root / "train" / name
    return {path.stem: np.load(path) for path in folder.iterdir()}


def check(arrays, rows, color=True):
    assert set(arrays) == {"coord", "strength"} | ({"color"} if color else set())
    assert arrays["coord"].dtype == arrays["strength"].dtype == np.float32
    np.testing.assert_array_equal(arrays["coord"], stack(rows, "x", "y", "z"))
    np.testing.assert_array_equal(arrays["strength"], rows["intensity"][:, None])
    if color:
        assert arrays["color"].dtype == np.uint8
        np.testing.assert_array_equal(arrays["color"], stack(rows, "red", "green", "blue"))


def write_pcd(path, rows, encoding=Encoding.BINARY, packed=False):
    names = rows.dtype.names
    columns = [rows[name] for name in names]
    if packed:
        red, green, blue = (rows[name].astype(np.uint32) for name in ("red", "green", "blue"))
        names = ("x", "y", "z", "intensity", "rgb")
        columns = columns[:4] + [(red << 16 | green << 8 | blue).view(np.float32)]
    cloud = PointCloud.from_points(columns, names, [column.dtype for column in columns])
    cloud.save(path, encoding=encoding)


def test_nuscenes(tmp_path, rows):
    ring = np.arange(COUNT, dtype=np.float32)
    full = np.column_stack([stack(rows, "x", "y", "z", "intensity"), ring]).astype("<f4")
    (tmp_path / "scan.pcd.bin").write_bytes(full.tobytes())
    assert call(tmp_path / "scan.pcd.bin", "--out", tmp_path / "out") == 0
    check(read(tmp_path / "out"), rows, color=False)
    (tmp_path / "scan.pcd.bin").rename(tmp_path / "scan.bin")
    forced = "--format", "nuscenes", "--out", tmp_path / "forced"
    assert call(tmp_path / "scan.bin", *forced) == 0
    check(read(tmp_path / "forced"), rows, color=False)


@pytest.mark.parametrize("columns", [4, 5])
@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_npy_columns(tmp_path, rows, columns, dtype):
    plain = stack(rows, "x", "y", "z", "intensity", "red")[:, :columns].astype(dtype)
    np.save(tmp_path / "scan.npy", plain)
    assert call(tmp_path / "scan.npy", "--out", tmp_path / "out") == 0
    check(read(tmp_path / "out"), rows, color=False)


def test_npy_with_many_columns_needs_to_be_told(tmp_path, rows, capsys):
    np.save(tmp_path / "scan.npy", stack(rows, "x", "y", "z", "red", "green", "blue", "intensity"))
    assert call(tmp_path / "scan.npy", "--out", tmp_path / "out") == 2
    assert "7 columns without names: say which has the strengths" in capsys.readouterr().err
    told = "--strength-field", "6"
    assert call(tmp_path / "scan.npy", "--out", tmp_path / "out", *told) == 0
    check(read(tmp_path / "out"), rows, color=False)


def test_npy_with_named_fields(tmp_path, rows):
    np.save(tmp_path / "scan.npy", rows)
    assert call(tmp_path / "scan.npy", "--out", tmp_path / "out") == 0
    check(read(tmp_path / "out"), rows)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        (Encoding.ASCII, False),
        (Encoding.BINARY, False),
        (Encoding.BINARY_COMPRESSED, False),
        (Encoding.BINARY, True),
        (Encoding.BINARY_COMPRESSED, True),
    ],
)
def test_pcd(tmp_path, rows, encoding, packed):
    write_pcd(tmp_path / "scan.pcd", rows, encoding, packed)
    assert call(tmp_path / "scan.pcd", "--out", tmp_path / "out") == 0
    check(read(tmp_path / "out"), rows)


@pytest.mark.parametrize("options", [dict(text=True), dict(byte_order="<"), dict(byte_order=">")])
def test_ply(tmp_path, rows, options):
    PlyData([PlyElement.describe(rows, "vertex")], **options).write(str(tmp_path / "scan.ply"))
    assert call(tmp_path / "scan.ply", "--out", tmp_path / "out") == 0
    check(read(tmp_path / "out"), rows)


def test_argoverse(tmp_path, rows):
    """As Argoverse 2 stores it: half floats, bytes, and tables of other things beside it."""
    names = ["x", "y", "z", "intensity"]
    stored = {name: rows[name].astype(np.float16) for name in names[:3]}
    stored["intensity"] = (rows["intensity"] * 255).astype(np.uint8)
    stored["laser_number"] = np.arange(COUNT, dtype=np.uint8)
    stored["offset_ns"] = np.arange(COUNT, dtype=np.int32)
    lidar = tmp_path / "log/sensors/lidar"
    lidar.mkdir(parents=True)
    feather.write_feather(pyarrow.table(stored), str(lidar / "315966070559696000.feather"))
    feather.write_feather(pyarrow.table({"tx_m": [1.0]}), str(tmp_path / "log/annotations.feather"))
    assert call(tmp_path / "log", "--out", tmp_path / "out") == 0
    arrays = read(tmp_path / "out", "315966070559696000")
    expected = np.stack([stored[name] for name in names[:3]], 1).astype(np.float32)
    np.testing.assert_array_equal(arrays["coord"], expected)
    expected = stored["intensity"][:, None] / np.float32(255)
    np.testing.assert_array_equal(arrays["strength"], expected)


def test_files_that_are_no_scans_are_counted(tmp_path, rows, capsys):
    np.save(tmp_path / "a.npy", stack(rows, "x", "y", "z", "intensity"))
    for name in ("a.png", "b.png", "a.label", "calib.txt", "LICENSE"):
        (tmp_path / name).write_text("no scan")
    assert call(tmp_path, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out.splitlines()
    (line,) = [line for line in said if line.startswith("files that are no scans: ")]
    assert line.startswith("files that are no scans: 2 .png, ")
    assert set(line.split(": ")[1].split(", ")[1:]) == {"1 .label", "1 .txt", "1 no suffix"}


def test_names_as_cloudcompare_writes_them(tmp_path, rows):
    names = ("X", "Y", "Z", "scalar_Intensity", "R", "G", "B")
    renamed = rows.view([(new, rows.dtype[old]) for new, old in zip(names, rows.dtype.names)])
    PlyData([PlyElement.describe(renamed, "vertex")]).write(str(tmp_path / "scan.ply"))
    assert call(tmp_path / "scan.ply", "--out", tmp_path / "out") == 0
    check(read(tmp_path / "out"), rows)


def test_strength_field(tmp_path, rows, capsys):
    named = np.zeros(COUNT, [*rows.dtype.descr, ("gain", "<f4")])
    for name in rows.dtype.names:
        named[name] = rows[name]
    named["gain"] = rows["intensity"] / 2
    np.save(tmp_path / "scan.npy", named)
    field = "--strength-field", "gain"
    assert call(tmp_path / "scan.npy", "--out", tmp_path / "out", *field) == 0
    strength = read(tmp_path / "out")["strength"]
    np.testing.assert_array_equal(strength, rows["intensity"][:, None] / 2)
    wrong = "--strength-field", "power"
    assert call(tmp_path / "scan.npy", "--out", tmp_path / "wrong", *wrong) == 2
    assert "no field 'power'; there are x, y, z, intensity, red" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dtype", "factor"), [("<u2", 257), ("<f4", 1 / 255), ("<f8", 1), ("<i4", 1)]
)
def test_ranges_of_colours(tmp_path, rows, dtype, factor):
    names = rows.dtype.names
    other = rows.astype([(n, dtype if n in names[4:] else "<f4") for n in names])
    for name in names[4:]:
        other[name] = rows[name].astype("f8") * factor
    np.save(tmp_path / "scan.npy", other)
    assert call(tmp_path / "scan.npy", "--out", tmp_path / "out") == 0
    check(read(tmp_path / "out"), rows)


def test_colours_are_left_out_where_some_scans_have_none(tmp_path, rows, capsys):
    np.save(tmp_path / "a.npy", rows)
    np.save(tmp_path / "b.npy", stack(rows, "x", "y", "z", "intensity"))
    assert call(tmp_path / "a.npy", tmp_path / "b.npy", "--out", tmp_path / "out") == 0
    check(read(tmp_path / "out", "a"), rows, color=False)
    assert "colours are left out" in capsys.readouterr().out


def test_mixed_formats_of_a_folder(tmp_path, rows):
    (tmp_path / "in").mkdir()
    write_pcd(tmp_path / "in/one.pcd", rows)
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(tmp_path / "in/two.ply"))
    np.save(tmp_path / "in/three.npy", rows)
    assert call(tmp_path / "in", "--out", tmp_path / "out") == 0
    for name in ("one", "two", "three"):
        check(read(tmp_path / "out", name), rows)


def bad_files(folder, rows):
    """Files that cannot be read, with a part of the reason."""
    write_pcd(folder / "good.pcd", rows)
    whole = (folder / "good.pcd").read_bytes()
    size = rows.dtype.itemsize
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(folder / "good.ply"))
    faces = np.array([([0, 1, 2],)], [("vertex_indices", "i4", (3,))])
    PlyData([PlyElement.describe(faces, "face")]).write(str(folder / "faces.ply"))
    np.save(folder / "flat.npy", rows["x"])
    np.save(folder / "text.npy", np.array([["a"] * 4]))
    np.save(folder / "noxyz.npy", rows[["intensity", "red"]])
    np.save(folder / "objects.npy", np.array([[{}] * 4]), allow_pickle=True)
    np.save(folder / "none.npy", np.zeros((0, 4), "f4"))
    np.save(folder / "colours.npy", with_color(rows, 300.0))
    for name, content in {
        "points.pcd": whole[: -3 * size],
        "bytes.pcd": whole[:-3],
        "header.pcd": b"VERSION 0.7\nFIELDS x y\n",
        "noise.pcd": bytes(range(256)),
        "cut.ply": (folder / "good.ply").read_bytes()[:-30],
        "noise.ply": bytes(range(256)),
        "noise.npy": bytes(range(256)),
        "scan.xyz": b"1 2 3",
    }.items():
        (folder / name).write_bytes(content)
    return {
        "points.pcd": f"cut off: {COUNT - 3} of {COUNT} points",
        "bytes.pcd": "cannot be read as pcd",
        "header.pcd": "cannot be read as pcd",
        "noise.pcd": "cannot be read as pcd",
        "cut.ply": "cannot be read as ply",
        "noise.ply": "cannot be read as ply",
        "noise.npy": "cannot be read as npy",
        "faces.ply": "without the element 'vertex'",
        "flat.npy": f"an array of shape ({COUNT},)",
        "text.npy": "type <U1",
        "noxyz.npy": "no field 'x'; there are intensity, red",
        "objects.npy": "cannot be read as npy",
        "none.npy": "no point",
        "colours.npy": "colours from 0 to 300, expected",
        "scan.xyz": "suffix '.xyz' is none of .pcd.bin, .bin",
    }


def with_color(rows, red):
    names = rows.dtype.names
    other = rows.astype([(n, "<f4") for n in names])
    for name in names[4:]:
        other[name] = 0
    other["red"][0] = red
    return other


def test_bad_files_are_listed_with_the_reason(tmp_path, rows, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    bad = bad_files(folder, rows)
    assert call(*sorted(folder.iterdir()), "--out", tmp_path / "out") == 2
    lines = capsys.readouterr().err.splitlines()
    for name, why in bad.items():
        (line,) = [line for line in lines if f"/{name}: " in line]
        assert why in line and len(line) < 400
    assert f"{len(bad)} files skipped" in "".join(lines)
    assert {path.split("/")[1][:4] for path in tree(tmp_path / "out")} == {"good"}


@pytest.mark.parametrize(
    ("suffix", "library"),
    [("pcd", "lzf"), ("ply", "plyfile"), ("laz", "laspy"), ("bag", "rosbags")],
)
def test_a_missing_library_is_one_line(tmp_path, monkeypatch, capsys, suffix, library):
    (tmp_path / f"scan.{suffix}").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, library, None)
    words = ["ingest", str(tmp_path / f"scan.{suffix}"), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dos-plugin ingest: needs the package '{library}'")
    assert not (tmp_path / "out").exists()
