"""view as it is typed: a run, files with and without a checkpoint, and bad input."""

import numpy as np
import pytest

pytest.importorskip("spconv")
pytest.importorskip("torch_pointcloud")

import dos_plugin
from dos_plugin import cli
from tests.tiny_run import write_run, write_scans
from tests.viewer_pages import read_page

ALL = ["label", "strength", "height", "components", "prototype"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    write_scans(root / "data", "train", 1)
    write_scans(root / "data", "val", 3)
    write_run(root / "run", root / "data")
    return root


@pytest.fixture
def view(tmp_path, capsys):
    def view(*arguments):
        out = tmp_path / "out" / "page.html"
        assert cli.main(["view", *map(str, arguments), "--out", str(out)]) == 0
        return (*read_page(out), capsys.readouterr().out)

    return view


def fails(capsys, *arguments):
    assert cli.main(["view", *map(str, arguments)]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1].removeprefix("dos-plugin view: error: ")


def keys(header):
    return [mode["key"] for mode in header["modes"]]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_run_shows_its_scans_for_validation(root, view):
    header, _, out = view(root / "run")
    assert header["title"] == f"run on {root}/data/val"
    assert [scan["name"] for scan in header["scans"]] == ["scan-0", "scan-2"]
    assert keys(header) == ALL
    assert "scan-0: 2,100 points\nscan-2: 2,100 points\n" in out and "open it in a browser" in out
    header, *_ = view(root / "run", "--split", "train", "--branch", "teacher")
    assert [scan["name"] for scan in header["scans"]] == ["scan-0"]


def test_files_get_the_features_of_a_checkpoint(root, view, tmp_path):
    scene = root / "data" / "val" / "scan-1"
    coord, strength = (np.load(scene / f"{key}.npy") for key in ("coord", "strength"))
    np.hstack([coord, strength]).astype("<f4").tofile(tmp_path / "one.bin")
    header, scans, _ = view(tmp_path / "one.bin", scene, "--checkpoint", root / "run")
    assert [scan["name"] for scan in header["scans"]] == ["one.bin", "scan-1"]
    assert keys(header) == ALL
    assert header["modes"][0]["names"] == ["unlabelled", "class 0", "class 1", "class 2"]
    np.testing.assert_array_equal(scans[0]["coord"], scans[1]["coord"])
    np.testing.assert_array_equal(scans[0]["features"], scans[1]["features"])
    encoder = dos_plugin.load(root / "run")
    true = encoder(encoder.read(scene)).similar_to(700)
    rows = unit(scans[0]["features"].astype(np.float64))[scans[0]["inverse"]]
    error = np.abs(rows @ rows[700] - true)
    assert error.max() < 0.02 and true.std() > 0.1


def test_files_alone_show_what_is_in_them_with_labels_beside(view, tmp_path):
    random = np.random.default_rng(0)
    rows = np.hstack([random.normal(size=(60, 3)), random.integers(0, 255, (60, 1))])
    rows[7, 0] = np.nan
    labels = random.integers(0, 3, 60) * 10
    (tmp_path / "labels").mkdir()
    for name in "ab":
        rows.astype("<f4").tofile(tmp_path / f"{name}.bin")
        labels.astype("<u4").tofile(tmp_path / "labels" / f"{name}.label")
    header, scans, out = view(tmp_path, "--labels", tmp_path / "labels")
    assert [scan["name"] for scan in header["scans"]] == ["a.bin", "b.bin"]
    assert keys(header) == ALL[:3] and "no features" in out
    assert header["modes"][0]["names"] == ["class 0", "class 10", "class 20"]
    given = np.delete(labels, 7)
    np.testing.assert_array_equal(np.unique(labels)[scans[0]["label"]], given)
    facts = header["scans"][0]["strength"]
    strength = facts["low"] + scans[0]["strength"].ravel() * np.array(facts["step"])
    np.testing.assert_allclose(strength, np.delete(rows[:, 3], 7), atol=0.01)
    (tmp_path / "map.yaml").write_text("{0: ignore, 10: 0, 20: 1}")
    header, *_ = view(
        *(tmp_path / "a.bin", "--labels", tmp_path / "labels"),
        *("--label-map", tmp_path / "map.yaml", "--classes", "road", "car", "--max-points", 50),
    )
    assert header["modes"][0]["names"] == ["unlabelled", "road", "car"]
    assert (header["scans"][0]["count"], header["scans"][0]["total"]) == (50, 59)


def test_bad_input_is_said_in_one_line(root, tmp_path, capsys):
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype("<f4")
    rows.tofile(tmp_path / "a.bin")
    scan = tmp_path / "a.bin"
    assert "none.pcd: no such file" in fails(capsys, tmp_path / "none.pcd")
    assert "cannot be read as bin" in fails(capsys, scan)
    np.zeros(5, "<u4").tofile(tmp_path / "a.label")
    rows[:, 3] = 0.5
    rows.tofile(scan)
    text = fails(capsys, scan, "--labels", "{dir}/{stem}.label")
    assert text == f"{scan}: 5 labels for 20 points"
    assert "expected a name that ends in .html" in fails(capsys, scan, "--out", "view.png")
    assert "13 scans, a page holds at most 12" in fails(capsys, *[scan] * 13)
    assert "expected nothing after it" in fails(capsys, root / "run", scan)
    np.save(tmp_path / "bare.npy", rows[:, :3])
    text = fails(capsys, tmp_path / "bare.npy", "--checkpoint", root / "run")
    assert "has no strength, an input of this encoder" in text
    assert not (tmp_path / "view.html").exists()
