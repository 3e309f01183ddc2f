"""Splits: which scans are chosen, what is linked, bad input."""

import json
import pickle

import pytest

from dos_plugin import cli
from dos_plugin.commands.split import LAYOUTS, choose, write_split
from dos_plugin.minihost.datasets_lidar import NuScenesDataset
from tests.dataset_layouts import (
    write_nuscenes,
    write_scannet,
    write_semantic_kitti,
    write_waymo,
)

NAMES = [f"scan{number}" for number in range(1000)]


def call(*words):
    return cli.main(["split", *map(str, words)])


def files(root):
    """Paths of all files below a folder, links to folders followed."""
    found = set()
    for path in root.iterdir():
        if path.is_dir():
            found |= {f"{path.name}/{below}" for below in files(path)}
        else:
            found.add(path.name)
    return found


@pytest.mark.parametrize(
    ("fraction", "count"), [(0.001, 1), (0.01, 10), (0.1, 100), (0.5, 500), (1, 1000)]
)
def test_number_of_scans(fraction, count):
    chosen = choose(NAMES, fraction)
    assert len(set(chosen)) == len(chosen) == count and set(chosen) <= set(NAMES)


def test_same_seed_is_nested_and_another_seed_differs():
    few, more = choose(NAMES, 0.01, seed=3), choose(NAMES, 0.1, seed=3)
    assert set(few) < set(more)
    assert choose(reversed(NAMES), 0.01, seed=3) == few
    assert len(set(choose(NAMES, 0.1, seed=4)) & set(more)) < 30  # 10 by chance


def test_scans_are_drawn_from_everywhere():
    numbers = [int(name[4:]) for seed in range(20) for name in choose(NAMES, 0.1, seed)]
    assert abs(sum(numbers) / len(numbers) - 499.5) < 30  # five standard deviations
    assert len(set(numbers)) > 800  # of 1000; 878 are expected


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan")])
def test_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match="--fraction: .*, expected a number above 0 and at most 1"):
        choose(NAMES, fraction)


def test_fraction_that_leaves_no_scan(tmp_path, capsys):
    write_waymo(tmp_path, 4)
    assert call(tmp_path, "--fraction", "0.1") == 2
    error = capsys.readouterr().err
    assert "--fraction: 0.1 of 4 training scans leaves none" in error and "is 0.25" in error
    assert not (tmp_path / "few").exists()


def test_negative_seed():
    with pytest.raises(ValueError, match="--seed: -1"):
        choose(NAMES, 0.5, seed=-1)


def test_semantic_kitti_files(tmp_path):
    """All but the scans that were not chosen, and their labels."""
    write_semantic_kitti(tmp_path, 8)
    (tmp_path / "dataset/sequences/00/calib.txt").write_text("P0: 1")
    before = files(tmp_path)
    split = write_split(tmp_path, 0.25)
    train = {path for path in before if "velodyne" in path and "/08/" not in path}
    kept = {f"dataset/sequences/{n[:2]}/velodyne/{n[3:]}.bin" for n in split.chosen}
    assert len(kept) == 2 and kept < train
    lost = train - kept
    lost |= {path.replace("velodyne", "labels").replace(".bin", ".label") for path in lost}
    assert files(split.out) == before - lost | {"split.json"}
    assert files(tmp_path) - {f"few/0.25-seed0/{path}" for path in files(split.out)} == before


def test_nuscenes_infos_of_all_sweeps(tmp_path):
    write_nuscenes(tmp_path, 6)
    info = tmp_path / "info/nuscenes_infos_10sweeps_train.pkl"
    (tmp_path / "info/nuscenes_infos_1sweeps_train.pkl").write_bytes(info.read_bytes())
    before = info.read_bytes()
    out = write_split(tmp_path, 0.5).out
    for name in (info.name, "nuscenes_infos_1sweeps_train.pkl"):
        kept = pickle.loads((out / "info" / name).read_bytes())
        expected = [e for e in pickle.loads(before) if e in kept]
        assert kept == expected and len(kept) == 3
    assert info.read_bytes() == before
    assert (out / "info/nuscenes_infos_10sweeps_val.pkl").is_symlink()
    assert (out / "raw").is_symlink()


def test_the_record_lists_the_scans(tmp_path):
    write_scannet(tmp_path, 8)
    split = write_split(tmp_path, 0.5, seed=2)
    record = json.loads((split.out / "split.json").read_text())
    assert record == dict(fraction=0.5, seed=2, total=4, scans=split.chosen)
    assert sorted(p.name for p in (split.out / "train").iterdir()) == split.chosen


def test_again_replaces_the_split_and_never_splits_a_split_into_itself(tmp_path):
    write_scannet(tmp_path, 8)
    first = write_split(tmp_path, 0.5)
    before = files(first.out)
    assert files(write_split(tmp_path, 0.5).out) == before
    quarter = write_split(first.out, 0.5)  # of the half
    assert len(quarter.chosen) == 1 and set(quarter.chosen) < set(first.chosen)
    assert json.loads((first.out / "split.json").read_text())["total"] == 4
    assert sorted(p.name for p in (tmp_path / "few").iterdir()) == ["0.5-seed0"]


def test_the_data_can_move_with_their_splits(tmp_path):
    write_waymo(tmp_path / "a", 4)
    out = write_split(tmp_path / "a", 0.5).out
    count = len(files(out))
    (tmp_path / "a").rename(tmp_path / "b")
    moved = tmp_path / "b" / out.relative_to(tmp_path / "a")
    assert len(files(moved)) == count and all(p.exists() for p in moved.rglob("*"))


def test_out_elsewhere(tmp_path, monkeypatch, capsys):
    write_scannet(tmp_path / "data", 8)
    (tmp_path / "link").symlink_to("data")
    monkeypatch.chdir(tmp_path)
    assert call("link", "--fraction", "0.5", "--out", "mine/half") == 0
    assert len(list((tmp_path / "mine/half/train").glob("*/coord.npy"))) == 2
    assert not (tmp_path / "data/few").exists()
    told = capsys.readouterr().out
    assert "2 of 4 training scans" in told and "multiply epoch by 2" in told
    assert "--options data.train.data_root=mine/half\n" in told
    assert "data = dict(train=dict(data_root='mine/half'))" in told


def test_out_in_the_root_holds_the_root_and_not_itself(tmp_path):
    write_scannet(tmp_path, 8)
    out = write_split(tmp_path, 0.5, out=tmp_path / "half").out
    assert {path.name for path in out.iterdir()} == {"train", "val", "test", "split.json"} & {
        "split.json",
        *(path.name for path in tmp_path.iterdir()),
    }


def test_out_must_be_free_and_outside_the_data(tmp_path):
    write_scannet(tmp_path, 8)
    (tmp_path / "other").mkdir()
    for out, why in (("other", "exists and is no split"), ("train/x", "belongs to the data")):
        with pytest.raises(ValueError, match=f"--out: .*{why}"):
            write_split(tmp_path, 0.5, out=tmp_path / out)
    assert not (tmp_path / "train/x").exists() and list((tmp_path / "other").iterdir()) == []


def test_out_that_breaks_the_hosts_label_paths(tmp_path):
    write_semantic_kitti(tmp_path / "kitti", 4)
    with pytest.raises(ValueError, match="must not contain 'velodyne'"):
        write_split(tmp_path / "kitti", 0.5, out=tmp_path / "velodyne-half")


def test_unknown_root_says_what_was_looked_for(tmp_path, capsys):
    (tmp_path / "train/scene").mkdir(parents=True)  # without coord.npy
    assert call(tmp_path, "--fraction", "0.5") == 2
    error = capsys.readouterr().err
    assert all(layout in error for layout in LAYOUTS)
    assert call(tmp_path / "none", "--fraction", "0.5") == 2
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "no pickle, or cut off"), (pickle.dumps({"infos": []}), "expected a list of dicts")],
)
def test_bad_info_file(tmp_path, content, why):
    path = tmp_path / "info/nuscenes_infos_10sweeps_train.pkl"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name}: {why}"):
        write_split(tmp_path, 0.5)


class Harm:
    """What runs when a careless reader meets it."""

    def __reduce__(self):
        return print, ("harm",)


def test_an_info_file_cannot_run_code(tmp_path, capsys):
    path = tmp_path / "info/nuscenes_infos_10sweeps_train.pkl"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps([{"lidar_token": Harm()}]))
    with pytest.raises(ValueError, match=f"{path.name}: holds builtins.print, which could"):
        write_split(tmp_path, 0.5)
    with pytest.raises(ValueError, match="holds builtins.print"):
        NuScenesDataset(split="train", data_root=str(tmp_path), transform=[])
    assert "harm" not in capsys.readouterr().out
