"""Labels: where their files are found, what they hold, the map to training ids."""

import json
import re

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from dos_plugin.ingest.labels import map_labels, read_label_map
from tests.unit.test_ingest import call, points, tree, write_bin

RAW = np.array([0, 10, 10, 252, 40], np.uint32)
MAP = {"0": "ignore", "10": 0, "252": 0, "40": 8}
IDS = np.array([-1, 0, 0, 0, 8], np.int32)


@pytest.fixture
def kitti(tmp_path):
    """Two sequences of two scans, their labels with instances, and a map."""
    for sequence in ("00", "01"):
        for frame in range(2):
            folder = tmp_path / "in" / sequence
            write_bin(folder / f"velodyne/{frame:06d}.bin", points(len(RAW), frame))
            label = RAW | np.arange(len(RAW), dtype="<u4") << 16
            write_bin(folder / f"labels/{frame:06d}.label", label)
    (tmp_path / "map.json").write_text(json.dumps(MAP))
    return tmp_path


def segments(out):
    return {path.parent.name: np.load(path) for path in out.glob("train/*/segment.npy")}


def test_a_pattern_and_a_map(kitti, capsys):
    pattern = "{dir}/../labels/{stem}.label"
    out = "--out", kitti / "out", "--label-map", kitti / "map.json"
    assert call(kitti / "in", "--labels", pattern, *out) == 0
    found = segments(kitti / "out")
    assert sorted(found) == [f"0{s}-velodyne-00000{f}" for s in (0, 1) for f in (0, 1)]
    for segment in found.values():
        assert segment.dtype == np.int32 and np.array_equal(segment, IDS)
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["-1", "4", "20.00%"] in told and ["0", "12", "60.00%"] in told
    assert ["8", "4", "20.00%"] in told


def test_the_folder_above_the_scan_in_a_pattern(kitti):
    (kitti / "other").mkdir()
    for sequence in ("00", "01"):
        (kitti / f"in/{sequence}/velodyne").rename(kitti / f"in/{sequence}x")
        (kitti / f"in/{sequence}/labels").rename(kitti / f"other/{sequence}x")
    pattern = str(kitti / "other/{parent}/{stem}.label")
    assert call(kitti / "in", "--labels", pattern, "--out", kitti / "out") == 0
    assert len(segments(kitti / "out")) == 4


def test_a_folder_of_labels_and_no_map(kitti):
    one = kitti / "in/00"
    assert call(one, "--labels", one / "labels", "--out", kitti / "out") == 0
    found = segments(kitti / "out")
    assert sorted(found) == ["000000", "000001"]
    assert all(np.array_equal(segment, RAW) for segment in found.values())


def test_labels_in_the_same_folder_tree_are_no_scans(tmp_path):
    """npy and lidarseg labels have suffixes of scans."""
    np.save(tmp_path / "one.npy", points(5))
    write_bin(tmp_path / "two.pcd.bin", np.ones((5, 5), "<f4"))
    (tmp_path / "labels").mkdir()
    np.save(tmp_path / "labels/one.npy", RAW.astype(np.int64)[:, None])
    (tmp_path / "labels/two_lidarseg.bin").write_bytes(RAW.astype(np.uint8).tobytes())
    assert call(tmp_path, "--labels", tmp_path / "labels", "--out", tmp_path / "out") == 0
    found = segments(tmp_path / "out")
    assert np.array_equal(found["one"], RAW) and np.array_equal(found["two"], RAW % 256)


def test_the_same_name_twice_in_a_folder_of_labels(kitti, capsys):
    (kitti / "labels").mkdir()
    for sequence in ("00", "01"):
        (kitti / f"in/{sequence}/labels").rename(kitti / f"labels/{sequence}")
    assert call(kitti / "in", "--labels", kitti / "labels", "--out", kitti / "out") == 2
    error = capsys.readouterr().err
    assert "4 files skipped" in error and "2 label files of this name" in error
    assert "{dir}/../labels/{stem}.label" in error


def test_scans_in_the_folder_of_labels(kitti, capsys):
    assert call(kitti / "in", "--labels", kitti / "in", "--out", kitti / "out") == 2
    assert "all scans lie in" in capsys.readouterr().err


def test_bad_labels_skip_their_scan_only(kitti, capsys):
    labels = kitti / "in/00/labels"
    (labels / "000000.label").write_bytes((RAW + 1).astype("<u4").tobytes())
    (labels / "000001.label").write_bytes(RAW[:3].astype("<u4").tobytes())
    (kitti / "in/01/labels/000000.label").write_bytes(b"abc")
    pattern = "{dir}/../labels/{stem}.label"
    out = "--out", kitti / "out", "--label-map", kitti / "map.json"
    assert call(kitti / "in", "--labels", pattern, *out) == 2
    error = capsys.readouterr().err
    assert "3 files skipped" in error
    assert "label 1 (1 points), 11 (2 points), 41 (1 points), 253 (1 points): not in" in error
    assert "3 labels for 5 points" in error
    assert "3 bytes is not a multiple of 4" in error
    assert list(segments(kitti / "out")) == ["01-velodyne-000001"]
    (kitti / "in/01/labels/000001.label").unlink()
    assert call(kitti / "in", "--labels", pattern, "--out", kitti / "again") == 2
    assert "no label file" in capsys.readouterr().err


def test_a_label_file_that_cannot_be_read_is_named(tmp_path, capsys):
    write_bin(tmp_path / "a.bin", points(5))
    (tmp_path / "labels/a.label").mkdir(parents=True)
    place = "--labels", tmp_path / "labels", "--out", tmp_path / "out"
    assert call(tmp_path / "a.bin", *place) == 2
    error = capsys.readouterr().err
    assert f"a.bin: {tmp_path / 'labels/a.label'} cannot be read (Is a directory)" in error


def test_labels_of_dropped_points_are_dropped(tmp_path):
    rows = points(5)
    rows[1, 0] = np.nan
    write_bin(tmp_path / "a.bin", rows)
    np.save(tmp_path / "a.npy", RAW)
    pattern = str(tmp_path / "{stem}.npy")
    assert call(tmp_path / "a.bin", "--labels", pattern, "--out", tmp_path / "out") == 0
    assert segments(tmp_path / "out")["a"].tolist() == [0, 10, 252, 40]


@pytest.mark.parametrize("dtype", ["<u1", "<i4", "<f4"])
def test_a_field_of_the_scan(tmp_path, dtype):
    names = ["x", "y", "z", "intensity"]
    rows = np.zeros(5, [(name, "<f4") for name in names] + [("class", dtype)])
    rows["x"], rows["class"] = np.arange(1, 6), RAW
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(tmp_path / "a.ply"))
    np.save(tmp_path / "b.npy", rows)
    scans = tmp_path / "a.ply", tmp_path / "b.npy"
    assert call(*scans, "--label-field", "class", "--out", tmp_path / "out") == 0
    found = segments(tmp_path / "out")
    assert all(np.array_equal(found[name], RAW.astype(dtype)) for name in "ab")


def test_a_column_of_the_scan(tmp_path, capsys):
    rows = np.column_stack([points(5), RAW])
    np.save(tmp_path / "a.npy", rows)
    assert call(tmp_path / "a.npy", "--label-field", "4", "--out", tmp_path / "out") == 0
    assert np.array_equal(segments(tmp_path / "out")["a"], RAW)
    assert call(tmp_path / "a.npy", "--label-field", "3", "--out", tmp_path / "no") == 2
    assert "labels that are no whole numbers" in capsys.readouterr().err
    assert call(tmp_path / "a.npy", "--label-field", "5", "--out", tmp_path / "no") == 2
    assert "no field '5'; there are x, y, z, 3, 4" in capsys.readouterr().err


def test_scans_with_labels_do_not_replace_those_without(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.column_stack([points(5), RAW]))
    again = tmp_path / "a.npy", "--label-field", "4", "--out", tmp_path / "out"
    assert call(tmp_path / "a.npy", "--out", tmp_path / "out") == 0
    assert call(*again) == 2 and "--overwrite" in capsys.readouterr().err
    assert tree(tmp_path / "out") == ["train/a/coord.npy", "train/a/strength.npy"]
    assert call(*again, "--overwrite") == 0 and call(*again) == 0
    assert len(tree(tmp_path / "out")) == 3


@pytest.mark.parametrize("options", [["--label-field", "4", "--labels", "."]])
def test_labels_from_two_places(tmp_path, capsys, options):
    np.save(tmp_path / "a.npy", points(5))
    assert call(tmp_path / "a.npy", *options, "--out", tmp_path / "out") == 2
    assert "--labels and --label-field: give one of them" in capsys.readouterr().err


def test_map_files(tmp_path):
    expected = {0: -1, 10: 0, 252: 0, 40: 8}
    (tmp_path / "map.json").write_text(json.dumps(MAP))
    (tmp_path / "map.yaml").write_text("0: ignore\n10: 0\n252: 0\n40: 8  # road\n")
    for name in ("map.json", "map.yaml"):
        assert read_label_map(str(tmp_path / name)) == expected


SEMANTIC_KITTI = """
labels: {0: unlabeled, 10: car, 40: road, 252: moving-car}
learning_map: {0: 0, 10: 1, 40: 9, 252: 1}
learning_map_inv: {0: 0, 1: 10, 9: 40}
"""


def test_the_file_of_semantic_kitti_as_a_map(kitti, capsys):
    (kitti / "semantic-kitti.yaml").write_text(SEMANTIC_KITTI)
    assert read_label_map(str(kitti / "semantic-kitti.yaml")) == {0: -1, 10: 0, 40: 8, 252: 0}
    words = "--labels", kitti / "in/00/labels", "--label-map", kitti / "semantic-kitti.yaml"
    assert call(kitti / "in/00", *words, "--out", kitti / "out") == 0
    assert all(np.array_equal(segment, IDS) for segment in segments(kitti / "out").values())
    said = capsys.readouterr().out
    assert "learning_map of" in said and "0 is ignored" in said


TOKENS = ["%032x" % (7 * n + 1) for n in range(3)]


@pytest.fixture
def nuscenes(tmp_path):
    """Two keyframes with labels by token, a camera's rows, and the tables."""
    root = tmp_path / "nuscenes"
    rows = [{"token": TOKENS[2], "filename": "samples/CAM_FRONT/c.jpg"}]
    for number in range(2):
        name = f"n015__LIDAR_TOP__{number}.pcd.bin"
        scan = np.column_stack([points(5, number), np.arange(5)])
        write_bin(root / f"samples/LIDAR_TOP/{name}", scan.astype("<f4"))
        rows.append({"token": TOKENS[number], "filename": f"samples/LIDAR_TOP/{name}"})
        label = (RAW % 256 + number).astype(np.uint8)
        write_bin(root / f"lidarseg/v1.0-mini/{TOKENS[number]}_lidarseg.bin", label)
        (root / "panoptic/v1.0-mini").mkdir(parents=True, exist_ok=True)
        panoptic = label.astype(np.uint16) * 1000 + 3
        np.savez(root / f"panoptic/v1.0-mini/{TOKENS[number]}_panoptic.npz", data=panoptic)
    (root / "v1.0-mini").mkdir()
    (root / "v1.0-mini/sample_data.json").write_text(json.dumps(rows))
    return root


@pytest.mark.parametrize("kind", ["lidarseg", "panoptic", "lidarseg/v1.0-mini"])
def test_labels_of_nuscenes_are_found_by_its_tables(nuscenes, tmp_path, kind):
    (nuscenes / "panoptic" if "lidar" in kind else nuscenes / "lidarseg").rename(tmp_path / "no")
    out = tmp_path / "out"
    assert call(nuscenes / "samples", "--labels", nuscenes / kind, "--out", out) == 0
    found = segments(out)
    assert sorted(found) == ["n015__LIDAR_TOP__0", "n015__LIDAR_TOP__1"]
    for number, name in enumerate(sorted(found)):
        label = np.uint8(RAW % 256 + number)
        if kind == "panoptic":
            label = (label.astype(np.uint16) * 1000 + 3) // 1000
        assert np.array_equal(found[name], label)


def test_labels_of_nuscenes_without_its_tables(nuscenes, tmp_path, capsys):
    (nuscenes / "v1.0-mini/sample_data.json").unlink()
    words = "--labels", nuscenes / "lidarseg", "--out", tmp_path / "out"
    assert call(nuscenes / "samples", *words) == 2
    error = capsys.readouterr().err
    assert "are named by the tokens of nuScenes" in error and "sample_data.json" in error


def test_a_folder_of_all_of_nuscenes(nuscenes, tmp_path, capsys):
    """Its labels are no scans."""
    assert call(nuscenes, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "files that are no scans: 2 _lidarseg.bin, 2 _panoptic.npz, 1 .json" in said
    assert "2 scans with 10 points" in said


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("map.json", "{", "cannot be parsed"),
        ("map.yaml", "a: [", "cannot be parsed"),
        ("map.json", "[1, 2]", "must hold labels"),
        ("map.json", "{}", "must hold labels"),
        ("map.json", '{"car": 1}', "'car': 1, expected a whole number"),
        ("map.json", '{"1": "car"}', "'1': 'car', expected"),
        ("map.json", '{"1": -2}', "expected a whole number"),
        ("map.json", '{"1": true}', "expected a whole number"),
        ("map.yaml", "1: 0.5", "expected a whole number"),
        ("map.yaml", "labels: {0: car}", "'labels': {0: 'car'}, expected"),
    ],
)
def test_bad_map_files(tmp_path, name, text, why):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="--label-map: ") as error:
        read_label_map(str(tmp_path / name))
    assert why in str(error.value) and name in str(error.value)


def test_mapping_is_a_table_look_up():
    rng = np.random.default_rng(0)
    table = {value: (value * 7) % 5 - 1 for value in range(300)}
    labels = rng.integers(0, 300, 10_000).astype(np.uint16)
    ids = map_labels(labels, table)
    assert ids.dtype == np.int32 and ids.tolist() == [table[int(v)] for v in labels]


def test_values_that_are_no_training_ids():
    with pytest.raises(ValueError, match=r"label -2 \(1 points\): no training id"):
        map_labels(np.array([-2, -1, 0, 3]), None)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("a.npy", np.array(3), "1 labels for 6 points: .*a.npy"),
        ("a.npy", np.zeros(5, int), "5 labels for 6 points: .*a.npy"),
        ("a_panoptic.npz", np.array(["car"] * 6), "no panoptic labels"),
    ],
)
def test_label_files_of_another_kind_are_told(tmp_path, capfd, name, value, why):
    for folder in ("scans", "labels"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "scans/a.npy", np.arange(18.0).reshape(6, 3))
    file = tmp_path / "labels" / name
    np.save(file, value) if file.suffix == ".npy" else np.savez(file, data=value)
    out = ("--out", tmp_path / "out")
    assert call(tmp_path / "scans", *out, "--labels", tmp_path / "labels") == 2
    assert re.search(why, capfd.readouterr().err)


def test_labels_of_an_organised_cloud(tmp_path):
    for folder in ("scans", "labels"):
        (tmp_path / folder).mkdir()
    rows = np.arange(1, 25.0).reshape(2, 4, 3)
    rows[1, 2] = np.nan
    np.save(tmp_path / "scans/a.npy", rows)
    np.save(tmp_path / "labels/a.npy", np.arange(8).reshape(2, 4))
    out = ("--out", tmp_path / "out")
    assert call(tmp_path / "scans", *out, "--labels", tmp_path / "labels") == 0
    segment = np.load(tmp_path / "out/train/a/segment.npy")
    np.testing.assert_array_equal(segment, [0, 1, 2, 3, 4, 5, 7])


def test_a_column_of_labels_is_no_strength(tmp_path):
    np.save(tmp_path / "a.npy", np.c_[np.arange(18.0).reshape(6, 3), [0, 1, 2, 0, 1, 2]])
    assert call(tmp_path / "a.npy", "--out", tmp_path / "out", "--label-field", "3") == 0
    names = {path.name for path in (tmp_path / "out/train/a").iterdir()}
    assert names == {"coord.npy", "segment.npy"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"learning_map: {0: 255, 10: 0}", "map.yaml: learning_map has 255: write -1"),
        ("0: 1".encode("utf-16"), "map.yaml is no text in UTF-8"),
    ],
)
def test_maps_that_would_be_misread_are_refused(tmp_path, data, why):
    (tmp_path / "map.yaml").write_bytes(data)
    with pytest.raises(ValueError, match=why):
        read_label_map(str(tmp_path / "map.yaml"))


def test_a_learning_map_with_minus_one_counts_from_0(tmp_path):
    (tmp_path / "map.yaml").write_bytes(b"\xef\xbb\xbflearning_map: {0: -1, 10: 0, 20: 1}")
    told = []
    table = read_label_map(str(tmp_path / "map.yaml"), told.append)
    assert table == {0: -1, 10: 0, 20: 1} and not told
