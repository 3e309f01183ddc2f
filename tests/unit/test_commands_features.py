"""dos-plugin features, as typed: what is in the files, what is kept, what is said of bad scans."""

import numpy as np
import pytest
import torch

pytest.importorskip("spconv")
pytest.importorskip("torch_pointcloud")

import dos_plugin
from dos_plugin import cli
from tests.tiny_run import write_run, write_scans


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A run, two scene folders, and three .bin files the last with a point of NaN."""
    root = tmp_path_factory.mktemp("root")
    write_scans(root / "data", "train", 2)
    write_run(root / "run", root / "data")
    (root / "drive").mkdir()
    for index in range(3):
        scene = root / f"data/train/scan-{index % 2}"
        rows = np.hstack([np.load(scene / "coord.npy"), np.load(scene / "strength.npy")])
        rows[(index == 2 and 5) or slice(0)] = np.nan
        rows.astype("<f4").tofile(root / f"drive/{index:06d}.bin")
    return root


def run(root, out, *sources, options=()):
    words = ["features", *sources, "--checkpoint", root / "run", "--out", out, *options]
    return cli.main([str(word) for word in words])


def test_files_hold_the_features_of_points(root, tmp_path, capsys):
    assert run(root, tmp_path, root / "drive") == 0
    assert f"features of 3 scans written to {tmp_path}" in capsys.readouterr().out
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"00000{i}.npz" for i in range(3)]
    encoder = dos_plugin.load(root / "run")
    for index in range(3):
        features = encoder(encoder.read(root / f"drive/{index:06d}.bin"))
        with np.load(tmp_path / f"{index:06d}.npz") as found:
            np.testing.assert_array_equal(found["feat"], features.per_point)
            np.testing.assert_array_equal(found["coord"], features.scan.coord)
            rows = np.delete(np.arange(2100), 5) if index == 2 else np.arange(2100)
            np.testing.assert_array_equal(found["row"], rows)


def test_voxels_in_half_of_scenes(root, tmp_path):
    options = ["--per", "voxel", "--half", "--branch", "teacher", "--device", "cpu"]
    assert run(root, tmp_path, root / "data", options=options) == 0
    encoder = dos_plugin.load(root / "run", "teacher")
    features = encoder(encoder.read(root / "data/train/scan-1"))
    with np.load(tmp_path / "scan-1.npz") as found:
        assert found["feat"].dtype == np.float16
        np.testing.assert_array_equal(found["feat"], features.per_voxel.half())
        np.testing.assert_array_equal(found["coord"], features.voxel_coord)
        np.testing.assert_array_equal(found["voxel"], features.voxel)


def test_a_second_run_keeps_what_is_there(root, tmp_path, capsys):
    file = root / "drive/000000.bin"
    assert run(root, tmp_path, file) == 0
    before = (tmp_path / "000000.npz").stat().st_mtime_ns
    assert run(root, tmp_path, file, root / "drive/000001.bin") == 0
    assert "features of 1 scans written" in capsys.readouterr().out
    assert (tmp_path / "000000.npz").stat().st_mtime_ns == before
    for options in (["--half"], ["--branch", "teacher"], ["--strength-scale", "2"]):
        assert run(root, tmp_path, file, options=options) == 2
        assert "000000.npz was made of another scan, encoder or options" in capsys.readouterr().err
    assert (tmp_path / "000000.npz").stat().st_mtime_ns == before
    assert run(root, tmp_path, file, options=["--half", "--overwrite"]) == 0
    (tmp_path / "000000.npz").write_bytes(b"cut")
    assert run(root, tmp_path, file) == 2
    assert run(root, tmp_path, file, options=["--overwrite"]) == 0
    assert np.load(tmp_path / "000000.npz")["feat"].dtype == np.float32


def test_bad_scans_are_listed_and_the_others_written(root, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/cut.bin").write_bytes(b"123")
    np.save(tmp_path / "in/plain.npy", np.random.default_rng(0).uniform(-5, 5, (50, 3)))
    sources = [tmp_path / "in", root / "drive/000000.bin", tmp_path / "none.pcd"]
    assert run(root, tmp_path / "out", *sources) == 2
    said = capsys.readouterr()
    assert "features of 1 scans written" in said.out
    lines = said.err[said.err.index("dos-plugin features: 3 skipped:") :].splitlines()[1:]
    assert sorted(line.strip().removeprefix(f"{tmp_path}/").split(":")[0] for line in lines) == [
        "in/cut.bin",
        "in/plain.npy",
        "none.pcd",
    ]
    (plain,) = [line for line in lines if "plain.npy" in line]
    assert "has no strength, an input of this encoder (coord, strength); it has coord." in plain
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["000000.npz"]


def test_parts(root, tmp_path):
    assert run(root, tmp_path / "whole", root / "drive/000000.bin") == 0
    options = ["--max-voxels", "300"]
    assert run(root, tmp_path / "parts", root / "drive/000000.bin", options=options) == 0
    whole, parts = (
        torch.tensor(np.load(tmp_path / name / "000000.npz")["feat"]) for name in ("whole", "parts")
    )
    likeness = torch.nn.functional.cosine_similarity(whole, parts)
    assert not torch.equal(whole, parts) and likeness.mean() > 0.95


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        cli.main(["features", "--help"])
    assert "dos-plugin features drive --checkpoint exp/dos/demo" in " ".join(
        capsys.readouterr().out.split()
    )
