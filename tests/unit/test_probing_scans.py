"""Backbones of a run, and the features of its scans."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dos_plugin.host import active_host
from dos_plugin.models.backbone import build_backbone
from dos_plugin.probing.scans import (
    ScanSource,
    default_splits,
    extract,
    held_out_source,
    scan_transform,
)
from dos_plugin.runs.checkpoint import read_checkpoint
from dos_plugin.runs.run import (
    Run,
    load_backbone,
    open_run,
    random_backbone,
)
from dos_plugin.shipped import configs_dir
from tests.dataset_layouts import WRITERS
from tests.tiny_run import GRID, write_config, write_run, write_scans


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    write_scans(root / "data", "train", 3)
    return open_run(write_run(root / "run", root / "data"))


@pytest.fixture(scope="module")
def scan(run):
    return ScanSource(run)[1]


def test_scan_holds_one_point_of_every_occupied_cell(run, scan):
    folder = f"{run.config.data.train.data_root}/train/scan-1"
    coord, segment = np.load(f"{folder}/coord.npy"), np.load(f"{folder}/segment.npy")
    cell = np.floor(coord / GRID).astype(int)
    assert len(scan.coord) == len(np.unique(cell, axis=0))
    assert len(scan.grid_coord.unique(dim=0)) == len(scan.coord)
    assert scan.grid_coord.min() == 0
    # Every voxel is a point on disk, with that point's label and features.
    strength = np.load(f"{folder}/strength.npy")
    rows = {tuple(c): (s, f[0], c[2]) for c, s, f in zip(coord, segment, strength)}
    for c, s, f in zip(scan.coord.numpy(), scan.segment.numpy(), scan.feat.numpy()):
        assert rows[tuple(c)] == (s, f[0], f[1])
    np.testing.assert_array_equal(scan.raw.numpy(), np.hstack([scan.feat, scan.coord]))


def test_scan_maps_every_point_to_its_voxel(scan):
    own_cell = np.floor(scan.origin_coord / GRID).astype(int)
    voxel_cell = np.floor(scan.coord.numpy() / GRID).astype(int)
    np.testing.assert_array_equal(voxel_cell[scan.inverse], own_cell)
    assert len(scan.origin_segment) == len(scan.origin_coord) == 2100


def test_scans_are_the_same_every_time_and_leave_the_random_stream_alone(run):
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    first = ScanSource(run)[2]
    assert np.random.rand() == expected
    np.random.rand(3)
    again = ScanSource(run)[2]
    assert first.name == again.name == "scan-2"
    torch.testing.assert_close(first.coord, again.coord, rtol=0, atol=0)


def test_limit_spreads_over_the_split(run):
    assert [scan.name for scan in ScanSource(run, limit=2)] == ["scan-0", "scan-2"]


def test_points_that_are_not_finite_are_no_points_of_the_scan(run, tmp_path):
    write_scans(tmp_path, "val", 1)
    coord = np.load(tmp_path / "val/scan-0/coord.npy")
    coord[10] = np.nan
    np.save(tmp_path / "val/scan-0/coord.npy", coord)
    scan = ScanSource(run, tmp_path, "val")[0]
    assert len(scan.origin_coord) == len(scan.inverse) == 2099
    assert torch.isfinite(scan.coord).all()


def test_a_scan_too_long_for_the_backbone_is_named(run, scan):
    grid = scan.grid_coord.clone()
    grid[3, 0] = 65_535
    with pytest.raises(ValueError, match=r"scene\(s\) 'scan-1' .* are 65,536 voxels long"):
        extract(load_backbone(run, "student"), replace(scan, grid_coord=grid))


def test_transform_keeps_what_is_deterministic():
    steps = scan_transform(
        [
            dict(type="CenterShift", apply_z=False),
            dict(type="GridSample", grid_size=0.1, mode="train"),
            dict(
                type="TwoViews",
                view_transform=[
                    dict(type="RandomFlip", p=0.5),
                    dict(type="GridSample", grid_size=0.2, mode="train"),
                    dict(type="Height"),
                ],
            ),
            dict(type="BlockMask"),
            dict(type="Collect", keys=("coord",)),
        ]
    )
    assert [step["type"] for step in steps] == ["Copy", "CenterShift", "GridSample", "Height"]
    assert steps[2] == dict(
        type="GridSample",
        grid_size=0.2,
        mode="train",
        return_grid_coord=True,
        return_inverse=True,
    )
    with pytest.raises(ValueError, match="has no GridSample"):
        scan_transform([dict(type="Height")])


def test_features_of_all_levels_follow_the_pooling_maps(run, scan):
    backbone = load_backbone(run)
    feat = extract(backbone, scan)
    assert feat.shape == (len(scan.coord), 8 + 16 + 24)
    torch.testing.assert_close(extract(backbone, scan), feat, rtol=0, atol=0)

    batch = dict(
        feat=scan.feat,
        coord=scan.coord,
        grid_coord=scan.grid_coord,
        offset=torch.tensor([len(scan.coord)]),
    )
    with torch.no_grad():
        coarse = backbone(active_host().Point(batch))
    middle = coarse.pooling_parent
    fine = middle.pooling_parent
    for voxel in (0, 7, len(scan.coord) - 1):
        in_middle = middle.pooling_inverse[voxel]
        in_coarse = coarse.pooling_inverse[in_middle]
        expected = [fine.feat[voxel], middle.feat[in_middle], coarse.feat[in_coarse]]
        torch.testing.assert_close(feat[voxel], torch.cat(expected))


def test_branches_are_told_apart(run):
    student, teacher = load_backbone(run, "student"), load_backbone(run, "teacher")
    for own, other in zip(student.parameters(), teacher.parameters()):
        torch.testing.assert_close(1.1 * own, other)
        assert not own.requires_grad
    assert not student.training


def test_random_backbone_has_the_weights_that_training_starts_from(run, tmp_path):
    """One epoch with learning rate 0 on the embedded host leaves the initial student behind."""
    minihost = pytest.importorskip("dos_plugin.minihost")
    from dos_plugin.minihost.config import config_text

    if active_host().name != "minihost":
        pytest.skip("the embedded host is not the active one")
    config = write_config(tmp_path / "run", run.config.data.train.data_root)
    loaded = minihost.load_config(str(config))
    text = config_text(loaded)
    minihost.Trainer(minihost.setup_config(loaded), text).train()
    trained = open_run(tmp_path / "run")
    expected = load_backbone(trained, "student").state_dict()
    found = random_backbone(open_run(config)).state_dict()
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0, msg=key)


def test_checkpoint_of_another_backbone_is_named_entry_by_entry(run, tmp_path):
    state = torch.load(run.checkpoint)["state_dict"]
    state["student.backbone.extra.weight"] = torch.zeros(2)
    gone = next(key for key in state if key.startswith("student.backbone.") and "stem" in key)
    shape = tuple(state.pop(gone).shape)
    other = next(key for key in state if key.startswith("student.backbone.enc.enc1."))
    state[other] = torch.zeros(5, 5, 5)
    path = tmp_path / "model" / "model_last.pth"
    path.parent.mkdir()
    torch.save({"state_dict": state}, path)
    broken = open_run(path, run.config_path)
    with pytest.raises(ValueError) as error:
        load_backbone(broken)
    message = str(error.value)
    assert f"1 missing: {gone.removeprefix('student.backbone.')}" in message
    assert "1 unexpected: extra.weight" in message
    assert f"1 other shape: {other.removeprefix('student.backbone.')} (5, 5, 5) for" in message
    assert shape and str(path) in message


def test_files_that_are_no_checkpoints_are_named(run, tmp_path):
    whole = run.checkpoint.read_bytes()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.pth: truncated or not a torch file"):
        read_checkpoint(cut)
    text = tmp_path / "text.pth"
    text.write_text("hello")
    with pytest.raises(ValueError, match=r"text.pth: truncated or not a torch file"):
        read_checkpoint(text)
    bare = tmp_path / "bare.pth"
    torch.save({"weight": torch.zeros(1)}, bare)
    with pytest.raises(ValueError, match=r"bare.pth: holds no 'state_dict'"):
        read_checkpoint(bare)
    torch.save({"state_dict": {"module.backbone.x": torch.zeros(1)}}, bare)
    assert list(read_checkpoint(bare).state) == ["backbone.x"]
    with pytest.raises(ValueError, match=r"holds no 'student' backbone \(segm.* has: segmentor"):
        load_backbone(open_run(bare, run.config_path))
    with pytest.raises(FileNotFoundError, match="no checkpoint there"):
        read_checkpoint(tmp_path / "none.pth")


def test_missing_runs_and_scans_are_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such run folder"):
        open_run(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"config.py: no config there"):
        open_run(tmp_path)
    path = write_config(tmp_path / "own", tmp_path)
    path.write_text(path.read_text().replace('"dos_plugin.register"', '"no_such_zoo"'))
    with pytest.raises(ValueError, match=r"config.py: a module of custom_imp.*no_such_zoo.*PYTHO"):
        open_run(path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such data root"):
        ScanSource(run, tmp_path / "nowhere")
    (tmp_path / "val").mkdir()
    with pytest.raises((FileNotFoundError, ValueError), match="val"):
        ScanSource(run, tmp_path, "val")
    with pytest.raises(ValueError, match=r"model.backbone: missing in the config"):
        build_backbone(dict(model=dict(type="X")))
    write_scans(tmp_path, "bad", 1)
    np.save(tmp_path / "bad/scan-0/segment.npy", np.zeros(7, dtype=np.int32))
    with pytest.raises(ValueError, match=r"segment.npy has 7 rows"):
        ScanSource(run, tmp_path, "bad")[0]
    (tmp_path / "bad/scan-0/segment.npy").unlink()
    (tmp_path / "bad/scan-0/strength.npy").unlink()
    with pytest.raises((ValueError, KeyError), match="strength"):
        ScanSource(run, tmp_path, "bad")[0]


@pytest.mark.parametrize("name", ["nuscenes", "semantic-kitti", "waymo", "scannet", "outdoor"])
def test_scans_of_the_shipped_configs(name, tmp_path):
    """Of several data sets, the one whose root is given; else the first."""
    config = active_host().Config.fromfile(
        str(configs_dir() / f"pretrain-dos-v1m1-0-{name}.py"),
    )
    found = Run(config, tmp_path / "config.py", None)
    parts = config.data.train.get("datasets") or [config.data.train]
    for part in parts:
        root = tmp_path / str(part.data_root)
        WRITERS[str(part.data_root)](root)
        part.data_root = str(root)
    for part in parts:
        for split in default_splits(found, part.data_root):
            source = ScanSource(found, part.data_root, split, limit=2)
            assert source.place == f"{part.data_root}/{split}" and len(source) == 2
            scan = source[0]
            assert scan.feat.shape == (len(scan.coord), config.model.backbone.in_channels)
            assert scan.segment.max() >= 0
        source, lack = held_out_source(found, part.data_root)
        assert source.split == split and lack is None
    assert ScanSource(found).place.startswith(parts[0].data_root)


def test_without_scans_for_validation_those_of_the_training_are_taken(run, tmp_path):
    write_scans(tmp_path, "train", 2)
    source, lack = held_out_source(run, tmp_path)
    assert source.split == "train" and "val" in str(lack)
    with pytest.raises(FileNotFoundError, match="nowhere: no such data root"):
        held_out_source(run, tmp_path / "nowhere")
