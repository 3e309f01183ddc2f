"""Features of own points on either host.

Run on the embedded host by default, and on Pointcept by
``DOS_HOST=pointcept python -m dos_plugin.cpu -m pytest tests/contract/test_encoder.py``.
"""

import re
import shutil

import numpy as np
import pytest
import torch

import dos_plugin
from dos_plugin.commands.export import export, write, write_hub
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


def test_points_too_far_for_pretraining_have_features_and_are_no_points_of_a_probe(
    run, scene, tmp_path
):
    shutil.copytree(run.folder, tmp_path / "run")
    config = tmp_path / "run/config.py"
    text, count = re.subn(r"type=(['\"])PointId\1", r"\g<0>, max_extent=10", config.read_text())
    assert count == 1
    config.write_text(text)
    encoder, before = dos_plugin.load(tmp_path / "run"), dos_plugin.load(run.folder)
    points = encoder.read(scene)
    assert torch.equal(encoder(points).per_point, before(points).per_point)
    voxels = ScanSource(open_run(tmp_path / "run"))[0]
    assert 100 < len(voxels.inverse) == len(voxels.origin_coord) < len(points)
    middle = np.median(points.coord, axis=0)
    assert np.abs(voxels.origin_coord - middle)[:, :2].max() <= 5


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


def test_inputs_of_rooms(tmp_path):
    """Colour and normals, shifts and scalings of the config; the voxels' points are not shifted."""
    write_scans(tmp_path / "data", "train", 1)
    scene = tmp_path / "data/train/scan-0"
    rng = np.random.default_rng(0)
    coord = np.load(scene / "coord.npy") + np.float32([3, 0, 1])
    np.save(scene / "coord.npy", coord)
    normal = rng.normal(size=coord.shape).astype(np.float32)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    color = rng.integers(0, 256, coord.shape).astype(np.uint8)
    np.save(scene / "normal.npy", normal)
    np.save(scene / "color.npy", color)
    make_run(tmp_path, dict(BACKBONES["m2"], in_channels=9))
    text = (tmp_path / "config.py").read_text()
    for view in ("view1", "view2"):
        text = text.replace(f"'{view}_strength'", f"'{view}_coord', '{view}_color'")
        text = text.replace(f"'{view}_height'", f"'{view}_normal'")
    shift = "dict(type='CenterShift', apply_z=True), dict(type='NormalizeColor'), "
    assert "dict(type='Height')" in text
    text = text.replace("view_transform=[", f"view_transform=[{shift}")
    (tmp_path / "config.py").write_text(text)

    encoder = dos_plugin.load(tmp_path)
    assert encoder.feat_keys == ("coord", "color", "normal")
    assert list(encoder.inputs) == ["coord", "color", "normal"]
    found = encoder(encoder.scan(coord, color=color, normal=normal))
    voxels = ScanSource(open_run(tmp_path))[0]
    expected = extract(load_backbone(open_run(tmp_path)), voxels)
    assert torch.equal(found.per_voxel, expected)
    moved = voxels.coord - found.voxel_coord
    assert moved[0, 0] < -2
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), rtol=0, atol=1e-5)
    assert set(map(tuple, found.voxel_coord.tolist())) <= set(map(tuple, coord.tolist()))
    with pytest.raises(
        ValueError, match=r"room: has no normal, .*it has coord, color. Give normal"
    ):
        encoder.scan(coord, color=color, name="room")
    with pytest.raises(ValueError, match=r"normal of scan: -4.99\S* to 4.99\S*, expected -1 to 1"):
        encoder.scan(coord, color=color, normal=5 * normal)


def test_strengths_beyond_those_of_pretraining(run, scene):
    encoder = dos_plugin.load(run.folder)
    coord, strength = np.load(f"{scene}/coord.npy"), np.load(f"{scene}/strength.npy")
    loud = 255 * strength / strength.max()
    with pytest.raises(ValueError, match=r"strength of scan: \S+ to 255, expected 0 to 1 .*=255"):
        encoder.scan(coord, loud)
    with pytest.raises(ValueError, match=r"strength of scan: -0.1 to \S+, expected 0 to 1"):
        encoder.scan(coord, np.where(loud == 255, -0.1, 0.5), strength_scale=1)
    scaled = encoder(encoder.scan(coord, loud, strength_scale=255)).per_voxel
    same = encoder(encoder.scan(coord, loud / np.float32(255))).per_voxel
    assert torch.equal(scaled, same)
    assert not torch.equal(encoder(encoder.scan(coord, loud, strength_scale=1)).per_voxel, same)


def test_a_folder_for_the_hub_gives_the_features_of_the_run(run, scene, tmp_path):
    pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")
    write_hub(run, export(run, "hub"), tmp_path)
    encoder, other = dos_plugin.load(run.folder), dos_plugin.load(tmp_path)
    assert torch.equal(other(other.read(scene)).per_voxel, encoder(encoder.read(scene)).per_voxel)


def test_what_is_no_scan_is_refused(run, scene):
    encoder = dos_plugin.load(run.folder)
    for wrong in (scene, np.zeros((5, 3)), [np.zeros((5, 3))]):
        with pytest.raises(TypeError, match="expected a scan or a list of scans"):
            encoder(wrong)
    with pytest.raises(ValueError, match="max_voxels: 1, expected 2 or more"):
        dos_plugin.load(run.folder, max_voxels=1)
    with pytest.raises(FileNotFoundError, match="no such run folder"):
        dos_plugin.load(run.folder / "none")


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
