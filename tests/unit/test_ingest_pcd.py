"""PCD files as tools of different age write them."""

import struct

import numpy as np
import pytest

from dos_plugin.ingest.readers import read_fields
from tests.unit.test_ingest import call

ROWS = np.random.default_rng(0).uniform(-40, 40, (25, 4)).round(3).astype("<f4")
ROWS[:, 3] = np.arange(25)
HEADER = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS x y z intensity
SIZE 4 4 4 4
TYPE F F F F
COUNT 1 1 1 1
WIDTH 25
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS 25
DATA binary
"""


def write(folder, header, data):
    file = folder / "scan.pcd"
    file.write_bytes(header.encode() + data)
    return file


def check(file, names=("x", "y", "z", "intensity"), rows=ROWS):
    fields = read_fields(file, "pcd")
    assert tuple(fields) == names
    np.testing.assert_array_equal(np.stack(list(fields.values()), 1), rows[:, : len(names)])


def without(*keys):
    return "".join(line for line in HEADER.splitlines(True) if line.split()[0] not in keys)


def test_padding_and_bytes_after_the_data(tmp_path):
    header = """VERSION 0.7
FIELDS x y z _ intensity _ stamp _ ring _
SIZE 4 4 4 1 4 1 8 1 2 1
TYPE F F F U F U F U U U
COUNT 1 1 1 4 1 0 1 6 1 12
WIDTH 25
HEIGHT 1
POINTS 25
DATA binary
"""
    data = b"".join(struct.pack("<3f4xfd6xH12x", *row[:3], row[3], np.nan, 7) for row in ROWS)
    fields = read_fields(write(tmp_path, header, data + b"rest of the buffer"), "pcd")
    assert list(fields) == ["x", "y", "z", "intensity", "stamp", "ring"]
    np.testing.assert_array_equal(fields["intensity"], ROWS[:, 3])
    assert (fields["ring"] == 7).all() and fields["ring"].dtype == np.uint16
    assert np.isnan(fields["stamp"]).all()
    assert call(tmp_path / "scan.pcd", "--out", tmp_path / "out") == 0
    coord = np.load(tmp_path / "out/train/scan/coord.npy")  # no point is lost for its stamp
    np.testing.assert_array_equal(coord, ROWS[:, :3])


def test_old_versions_without_count_and_viewpoint(tmp_path):
    header = without("COUNT", "VIEWPOINT").replace("0.7", ".5")
    check(write(tmp_path, header, ROWS.tobytes()))
    check(write(tmp_path, without("POINTS"), ROWS.tobytes()))  # WIDTH times HEIGHT
    check(write(tmp_path, HEADER.replace("FIELDS", "COLUMNS"), ROWS.tobytes()))


@pytest.mark.parametrize("end", [" \n", "\r\n", "\t\r\n"])
def test_blanks_tabs_and_ends_of_lines(tmp_path, end):
    lines = [f"{x:.3f}  {y:.3f}\t{z:.3f} {i:g}" for x, y, z, i in ROWS]
    header = HEADER.replace("binary", "ascii").replace(" ", "  ").replace("\n", end)
    check(write(tmp_path, header, (end.join(lines) + end).encode()))


def test_missing_returns_in_fields_of_whole_numbers(tmp_path):
    header = HEADER.replace("binary", "ascii").replace("TYPE F F F F", "TYPE F F F U")
    lines = [f"{x:.3f} {y:.3f} {z:.3f} {i:g}" for x, y, z, i in ROWS]
    lines[3] = "nan nan nan nan"
    file = write(tmp_path, header, "\n".join(lines).encode())
    assert call(file, "--out", tmp_path / "out") == 0
    coord = np.load(tmp_path / "out/train/scan/coord.npy")
    np.testing.assert_array_equal(coord, np.delete(ROWS[:, :3], 3, axis=0))


def test_packed_colours_in_ascii(tmp_path):
    header = HEADER.replace("intensity", "rgb").replace("binary", "ascii")
    colors = np.random.default_rng(1).integers(0, 256, (25, 3)).astype(np.uint32)
    packed = (colors[:, 0] << 16 | colors[:, 1] << 8 | colors[:, 2]).view(np.float32)
    lines = [f"{x} {y} {z} {float(c)!r}" for (x, y, z), c in zip(ROWS[:, :3], packed)]
    file = write(tmp_path, header, "\n".join(lines).encode())
    assert call(file, "--out", tmp_path / "out") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out/train/scan/color.npy"), colors)


@pytest.mark.parametrize(
    ("header", "data", "why"),
    [
        (HEADER, ROWS.tobytes()[:-17], "cut off: 23 of 25 points"),
        (HEADER.replace("binary", "ascii"), b"1 2 3 4\n5 6", "cut off: 1 of 25 points"),
        (HEADER.replace("binary", "ascii"), b"1 2 3 x\n" * 25, "values that are no numbers"),
        (HEADER.replace("binary", "ascii"), b"1 2 3 4 5\n" * 25, "125 numbers, expected 25 points"),
        (HEADER.replace("binary", "binary_compressed"), b"", "cut off: no compressed points"),
        (HEADER.replace("binary", "zip"), b"", "DATA 'zip', expected one of ascii, binary"),
        (without("DATA"), b"", "no line DATA"),
        (without("FIELDS"), b"", "without the line FIELDS"),
        (without("POINTS", "WIDTH"), b"", "without the lines WIDTH and POINTS"),
        (HEADER.replace("SIZE 4", "SIZE"), b"", "4 names in FIELDS, but 3 values in SIZE"),
        (HEADER.replace("COUNT 1", "COUNT -1"), b"", "COUNT '-1 1 1 1', expected whole numbers"),
    ],
)
def test_broken_files_are_one_sentence(tmp_path, header, data, why):
    with pytest.raises(ValueError, match="cannot be read as pcd: ") as error:
        read_fields(write(tmp_path, header, data), "pcd")
    assert why in str(error.value) and "\n" not in str(error.value)
