"""Features of own points on either host.

Run on the embedded host by default, and on Pointcept by
``DOS_HOST=pointcept python -m dos_plugin.cpu -m pytest tests/contract/test_encoder.py``.
"""

import numpy as np
import pytest
import torch

import dos_plugin
from dos_plugin.commands.export import export, write
from dos_plugin.probing.scans import ScanSource, extract
from dos_plugin.runs.run import load_backbone, open_run
from tests.exported_runs import BACKBONES, make_run
from tests.tiny_run import GRID, write_run, write_scans


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    write_scans(root / "data", "train", 2)
    return open_run(write_run(root / "run", root / "data"))


@pytest.fixture(scope="module")
def scene(run):
    return f"{run.config.data.train.data_root}/train/scan-0"


def test_features_are_those_of_the_probe(run, scene):
    """Of the run, of its checkpoint, and of the teacher where one asks for it."""
    voxels = ScanSource(run)[0]
    for source, branch in (
        (run.folder, None),
        (run.checkpoint, "student"),
        (run.folder, "teacher"),
    ):
        encoder = dos_plugin.load(source, branch)
        assert encoder.branch == (branch or "student")
        found = encoder(encoder.read(scene))
        expected = extract(load_backbone(run, encoder.branch), voxels)
        assert torch.equal(found.per_voxel, expected)
        assert torch.equal(found.voxel_coord, voxels.coord)
        assert found.per_voxel.shape[1] == encoder.channels == 8 + 16 + 24
        assert not found.per_voxel.requires_grad


def test_points_have_the_features_of_their_voxel(run, scene):
    encoder = dos_plugin.load(run.folder)
    coord = np.load(f"{scene}/coord.npy")
    found = encoder(encoder.scan(coord, np.load(f"{scene}/strength.npy")))
    cell = np.floor(coord / GRID)
    assert found.per_point.shape == (len(coord), encoder.channels)
    np.testing.assert_array_equal(np.floor(found.voxel_coord.numpy() / GRID)[found.voxel], cell)
    _, place = np.unique(cell, axis=0, return_inverse=True)
    for number in range(place.max() + 1):
        assert len(found.per_point[place.ravel() == number].unique(dim=0)) == 1


def test_a_scan_gives_the_same_each_time_and_in_any_company(run, scene):
    encoder = dos_plugin.load(run.folder)
    scan, one = encoder.read(scene), encoder.scan([[0.0, 0.0, 0.0]], [0.5])
    first = encoder(scan).per_voxel
    state = torch.get_rng_state(), np.random.get_state()[2]
    small, again = encoder([one, scan])
    assert torch.equal(torch.get_rng_state(), state[0]) and np.random.get_state()[2] == state[1]
    assert torch.equal(again.per_voxel, first) and not torch.equal(first[:1], small.per_voxel)
    assert small.per_point.shape == (1, encoder.channels)
    assert encoder([]) == []


@pytest.mark.parametrize("kind", ["m1", "m2-decoder", "spunet"])
def test_exported_files_give_the_features_of_the_run(kind, tmp_path):
    write_scans(tmp_path / "data", "train", 1)
    run = make_run(tmp_path, BACKBONES[kind])
    scene = tmp_path / "data/train/scan-0"
    encoder = dos_plugin.load(tmp_path, "teacher")
    expected = encoder(encoder.read(scene)).per_voxel
    assert expected.std(dim=0).max() > 0.01
    for to in ("pointcept", "torch-pointcloud"):
        write(export(run, to, "teacher"), tmp_path / f"{to}.pth")
        other = dos_plugin.load(tmp_path / f"{to}.pth")
        assert other.branch == "teacher"
        assert torch.equal(other(other.read(scene)).per_voxel, expected)
