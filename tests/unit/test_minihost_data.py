"""Datasets, transforms, collate and random streams of the embedded host at their edges."""

import random
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dos_plugin.minihost import TRANSFORMS, DefaultDataset, collate_fn, point_collate_fn
from dos_plugin.seeding import EpochSampler, SeededDataset, derive_seed, set_seed


@pytest.fixture
def root(tmp_path):
    for name in ("b", "a"):
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        np.save(folder / "coord.npy", np.zeros((5, 3)))
        np.save(folder / "strength.npy", np.zeros((5, 1)))
    (tmp_path / "train/note.txt").write_text("not a sample")
    return tmp_path


def test_samples_are_sorted_and_files_are_no_samples(root):
    data = DefaultDataset("train", str(root))
    assert [data[i]["name"] for i in range(len(data))] == ["a", "b"]


def test_missing_roots_and_splits_are_named(root):
    with pytest.raises(FileNotFoundError, match=r"data_root: .*nowhere"):
        DefaultDataset("train", str(root / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"split: .*val"):
        DefaultDataset("val", str(root))
    (root / "empty").mkdir()
    with pytest.raises(ValueError, match=r"split 'empty': there is no sample"):
        DefaultDataset(["train", "empty"], str(root))
    with pytest.raises(ValueError, match="no split"):
        DefaultDataset([], str(root))


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1]"])
def test_a_bad_list_of_samples_is_named(root, text):
    (root / "list.json").write_text(text)
    with pytest.raises(ValueError, match=r"split: .*list.json"):
        DefaultDataset("list.json", str(root))


def spoil(root, name, content):
    path = root / "train/a" / name
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("coord.npy", None, r"train/a' has no coord.npy"),
        ("coord.npy", b"not an array", r"train/a/coord.npy"),
        ("coord.npy", b"", r"train/a/coord.npy"),
        ("coord.npy", np.zeros((5, 2)), r"coord.npy must have shape \(N, 3\), got \(5, 2\)"),
        ("strength.npy", np.zeros((4, 1)), r"strength.npy has 4 rows, but coord.npy has 5"),
        ("segment.npy", np.zeros(6), r"segment.npy has 6 rows"),
        ("segment.npy", np.array(1), r"segment.npy' holds a single number"),
        ("color.npy", np.array([None] * 5), r"color.npy"),
    ],
)
def test_bad_files_are_named(root, name, content, message):
    spoil(root, name, content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        DefaultDataset("train", str(root))[0]


def test_a_sample_that_vanished_is_named(root):
    data = DefaultDataset("train", str(root))
    shutil.rmtree(root / "train/a")
    with pytest.raises(FileNotFoundError, match="train/a"):
        data[0]


def test_left_out_parts_say_so(root):
    for option in ("test_mode", "cache"):
        with pytest.raises(NotImplementedError, match=option):
            DefaultDataset("train", str(root), **{option: True})
    with pytest.raises(NotImplementedError, match="mode='test'"):
        TRANSFORMS.build(dict(type="GridSample", mode="test"))
    with pytest.raises(ValueError, match="mode .* got 'all'"):
        TRANSFORMS.build(dict(type="SphereCrop", mode="all"))


NEEDS_POINTS = ["CenterShift", "GridSample"]


@pytest.mark.parametrize("name", NEEDS_POINTS)
def test_an_empty_scene_is_named(name):
    with pytest.raises(ValueError, match=f"{name}: coord of sample 'scene' is empty"):
        TRANSFORMS.build(dict(type=name))(dict(coord=np.zeros((0, 3)), name="scene"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_grid_sample_refuses_coordinates_that_are_not_finite(value):
    coord = np.zeros((3, 3))
    coord[1, 2] = value
    with pytest.raises(ValueError, match="GridSample: coord of sample 'scene' has NaN or inf"):
        TRANSFORMS.build(dict(type="GridSample"))(dict(coord=coord, name="scene"))


def test_grid_sample_of_one_point_and_of_duplicates():
    sample = TRANSFORMS.build(dict(type="GridSample", grid_size=0.1, return_grid_coord=True))
    one = sample(dict(coord=np.full((1, 3), -7.3)))
    assert one["grid_coord"].tolist() == [[0, 0, 0]]
    same = sample(dict(coord=np.full((9, 3), 2.5)))
    assert len(same["coord"]) == 1


def test_grid_sample_displacement():
    coord = np.array([[0.25, 0.5, 0.75], [1.9, 1.1, 1.5]])
    sample = TRANSFORMS.build(dict(type="GridSample", grid_size=1.0, return_displacement=True))
    result = sample(dict(coord=coord))
    rows = [np.flatnonzero((coord == kept).all(axis=1))[0] for kept in result["coord"]]
    assert np.allclose(result["displacement"], (coord % 1 - 0.5)[rows])
    assert "displacement" in result["index_valid_keys"]


TRANSFORMED = [
    dict(type="CenterShift"),
    dict(type="RandomRotate", p=1),
    dict(type="RandomScale"),
    dict(type="RandomFlip", p=1),
    dict(type="RandomJitter"),
]


@pytest.mark.parametrize("config", TRANSFORMED, ids=lambda config: config["type"])
def test_inputs_stay_and_types_are_kept(config):
    coord = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    before = coord.copy()
    result = TRANSFORMS.build(config)(dict(coord=coord))["coord"]
    assert np.array_equal(coord, before) and result is not coord
    assert result.dtype == np.float32


def test_errors_of_plumbing_name_the_key():
    collect = TRANSFORMS.build(dict(type="Collect", keys=("gone",)))
    with pytest.raises(KeyError, match="no 'gone'"):
        collect(dict(coord=torch.zeros(2, 3)))
    collect = TRANSFORMS.build(dict(type="Collect", keys=(), feat_keys=("strength",)))
    with pytest.raises(ValueError, match=r"feat_keys needs .* strength has shape \(2,\)"):
        collect(dict(coord=torch.zeros(2, 3), strength=torch.zeros(2)))
    with pytest.raises(TypeError, match=r"ToTensor: a.b\[1\] of type NoneType"):
        TRANSFORMS.build(dict(type="ToTensor"))(dict(a=dict(b=[1, None])))
    with pytest.raises(TypeError, match="feat_keys must be a list"):
        TRANSFORMS.build(dict(type="Collect", keys=(), feat_keys="coord"))
    update = TRANSFORMS.build(dict(type="Update", keys_dict=dict(index_valid_keys=["row"])))
    data = update(dict(coord=np.zeros((4, 3)), row=np.zeros(2)))
    data["index_valid_keys"].append("x")
    assert update({})["index_valid_keys"] == ["row"]
    with pytest.raises(IndexError, match="'row'"):
        TRANSFORMS.build(dict(type="SphereCrop", point_max=3))(data)


def test_errors_of_collate_name_the_key():
    with pytest.raises(KeyError, match="sample 'b' of the batch lacks the key 'feat'"):
        collate_fn([dict(feat=torch.zeros(1, 2), name="a"), dict(name="b")])
    with pytest.raises(ValueError, match=r"'feat', shapes \[\(1, 2\), \(1, 3\)\]"):
        collate_fn([dict(feat=torch.zeros(1, 2)), dict(feat=torch.zeros(1, 3))])
    with pytest.raises(ValueError, match="'size'"):
        collate_fn([dict(size=torch.tensor(1.0))] * 2)
    view = dict(view1_offset=torch.tensor([3]))
    with pytest.raises(ValueError, match=r"mix_prob=0.5: .* view1_offset cannot be mixed"):
        point_collate_fn([view, view], mix_prob=0.5)
    with pytest.raises(TypeError, match="must be a dict, got list"):
        point_collate_fn([[1]])


def test_sampler_orders():
    sampler = EpochSampler(10, 2, seed=1)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert {e for e, _ in order} == {epoch}
        epochs.append([index for _, index in order])
    assert sorted(epochs[0]) == list(range(10))
    assert epochs[0] == epochs[2] != epochs[1]
    assert [i for _, i in EpochSampler(10, 2, seed=2)] != epochs[0]


@pytest.mark.parametrize("length", [3, 4, 9, 11])
@pytest.mark.parametrize("world_size", [2, 4])
def test_every_number_of_ranks_sees_the_same_batches(length, world_size):
    def batches(world_size):
        ranks = [list(EpochSampler(length, 4, 1, rank, world_size)) for rank in range(world_size)]
        assert {len(rank) for rank in ranks} == {len(EpochSampler(length, 4, 1, 0, world_size))}
        share = 4 // world_size
        parts = [[rank[i : i + share] for i in range(0, len(rank), share)] for rank in ranks]
        return [{index for part in step for _, index in part} for step in zip(*parts)]

    assert batches(world_size) == batches(1)


def test_a_resumed_epoch_goes_on_behind_the_batches_that_were_seen():
    for rank in range(2):
        sampler = EpochSampler(11, 4, 1, rank, 2)
        orders = []
        for epoch in (3, 4):
            sampler.set_epoch(epoch)
            orders.append(list(sampler))
        sampler.skip(3, batches=1)
        for epoch, order in zip((3, 4), orders):
            sampler.set_epoch(epoch)
            assert list(sampler) == order[2 if epoch == 3 else 0 :]
        assert len(sampler) == 4  # of a whole epoch: schedules count with it


class Noisy(torch.utils.data.Dataset):
    marker = "inside"

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()])


def epoch_of(workers, epoch, batch_size=2):
    sampler = EpochSampler(6, 6, seed=5)
    sampler.set_epoch(epoch)
    loader = DataLoader(
        SeededDataset(Noisy(), 5), batch_size=batch_size, sampler=sampler, num_workers=workers
    )
    return torch.cat(list(loader))


def test_samples_depend_on_seed_epoch_and_index_only():
    first = epoch_of(0, 0)
    assert torch.equal(first, epoch_of(2, 0, batch_size=3))
    by_index = first[first[:, 0].argsort()]
    later = epoch_of(0, 1)
    later = later[later[:, 0].argsort()]
    assert (by_index[:, 1:] != later[:, 1:]).all()
    assert len(by_index[:, 1:].unique()) == 18


def test_samples_leave_the_main_process_alone():
    set_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(()).item()
    set_seed(3)
    data = SeededDataset(Noisy(), 5)
    data[(0, 1)]
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected
    assert data.marker == "inside" and len(data) == 6


def test_derived_seeds_differ():
    seeds = {derive_seed(s, e, i) for s in range(5) for e in range(5) for i in range(5)}
    assert len(seeds) == 125 and all(0 <= seed < 2**32 for seed in seeds)
