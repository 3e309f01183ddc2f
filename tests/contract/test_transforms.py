"""Transforms, collate, dataset and registries do the same on both hosts.

Run on the embedded host by default, and on Pointcept by
``DOS_HOST=pointcept python -m dos_plugin.cpu -m pytest tests/contract/test_transforms.py``.
"""

import copy
import importlib
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dos_plugin.host import HOST

sys.path.insert(0, str(Path(__file__).parents[1]))
from toy_training import write_scene

if HOST.name == "minihost":
    data_module = importlib.import_module("dos_plugin.minihost")
else:
    data_module = importlib.import_module(f"{HOST.name}.datasets")
collate_fn, point_collate_fn = data_module.collate_fn, data_module.point_collate_fn


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def cloud(count=400, seed=1):
    rng = np.random.default_rng(seed)
    return dict(
        coord=rng.uniform(-3, 3, (count, 3)).astype(np.float32),
        color=rng.uniform(0, 255, (count, 3)).astype(np.float32),
        normal=rng.normal(size=(count, 3)).astype(np.float32),
        strength=rng.random((count, 1)).astype(np.float32),
        segment=rng.integers(0, 5, count).astype(np.int32),
        row=np.arange(count),
        name="scene",
    )


def apply(data, *transforms):
    """Run transforms on a deep copy, so that the input serves as reference."""
    return HOST.Compose(list(transforms))(copy.deepcopy(data))


def cells_of(coord, size):
    cells = np.floor(coord / np.float64(size)).astype(np.int64)
    return cells - cells.min(axis=0)


def fnv(cell):
    """The 64-bit hash in Python integers, one cell at a time."""
    key = 14695981039346656037
    for number in cell:
        key = (key * 1099511628211) % 2**64 ^ int(number)
    return key


LISTED = dict(type="Update", keys_dict=dict(index_valid_keys=["coord", "segment", "row"]))


@pytest.mark.parametrize("hash_type", ["fnv", "ravel"])
def test_grid_sample_keeps_one_point_of_each_voxel(hash_type):
    data = cloud()
    sampled = apply(
        data,
        LISTED,
        dict(type="GridSample", grid_size=0.7, hash_type=hash_type, mode="train",
             return_grid_coord=True, return_inverse=True, return_min_coord=True),
    )  # fmt: skip
    cells = cells_of(data["coord"], 0.7)
    assert {tuple(c) for c in sampled["grid_coord"]} == {tuple(c) for c in cells}
    assert len(np.unique(sampled["grid_coord"], axis=0)) == len(sampled["coord"])
    assert sampled["grid_coord"].dtype == np.int64
    assert np.array_equal(sampled["grid_coord"].min(axis=0), [0, 0, 0])
    # each kept row is a row of the input, in its own cell, and all listed keys follow it
    row = sampled["row"]
    assert np.array_equal(sampled["coord"], data["coord"][row])
    assert np.array_equal(sampled["segment"], data["segment"][row])
    assert np.array_equal(sampled["grid_coord"], cells[row])
    # inverse leads each input row to the kept row of its voxel
    assert np.array_equal(sampled["grid_coord"][sampled["inverse"]], cells)
    assert sampled["min_coord"].shape == (1, 3)
    lowest = np.floor(data["coord"] / 0.7).min(axis=0) * 0.7
    assert np.allclose(sampled["min_coord"][0], lowest, atol=1e-6)
    assert "grid_coord" in sampled["index_valid_keys"]


def test_grid_sample_orders_rows_by_the_hash_of_their_voxel():
    sampled = apply(
        cloud(), dict(type="GridSample", grid_size=0.7, hash_type="fnv", return_grid_coord=True)
    )
    keys = [fnv(cell) for cell in sampled["grid_coord"]]
    assert keys == sorted(keys)
    sampled = apply(
        cloud(), dict(type="GridSample", grid_size=0.7, hash_type="ravel", return_grid_coord=True)
    )
    cells = [tuple(cell) for cell in sampled["grid_coord"]]
    assert cells == sorted(cells)


def test_grid_sample_draws_every_point_of_a_voxel():
    data = dict(coord=np.random.rand(4, 3).astype(np.float32), row=np.arange(4))
    config = [
        dict(type="Update", keys_dict=dict(index_valid_keys=["coord", "row"])),
        dict(type="GridSample", grid_size=1.0, mode="train"),
    ]
    sample = HOST.Compose(config)
    drawn = [int(sample(copy.deepcopy(data))["row"][0]) for _ in range(400)]
    counts = np.bincount(drawn, minlength=4)
    assert len(counts) == 4 and counts.min() > 60  # 100 each on average


def test_grid_sample_leaves_the_list_of_keys_of_the_config_alone():
    config = [LISTED, dict(type="GridSample", grid_size=0.7, return_grid_coord=True)]
    compose = HOST.Compose(copy.deepcopy(config))
    first, second = compose(cloud()), compose(cloud())
    assert first["index_valid_keys"] == second["index_valid_keys"]
    assert list(first["index_valid_keys"]) == ["coord", "segment", "row", "grid_coord"]


SELECTIONS = [
    dict(type="GridSample", grid_size=0.7, mode="train"),
    dict(type="RandomDropout", dropout_ratio=0.5, dropout_application_ratio=1.0),
    dict(type="SphereCrop", point_max=100, mode="random"),
]


@pytest.mark.parametrize("config", SELECTIONS, ids=lambda config: config["type"])
def test_selections_index_the_listed_keys_and_no_other(config):
    data = cloud()
    default = apply(data, config)
    assert len(default["row"]) == 400  # not listed by default
    kept = len(default["coord"])
    for key in ("color", "normal", "strength", "segment"):
        assert len(default[key]) == kept
    listed = apply(data, LISTED, config)
    assert len(listed["strength"]) == 400  # a list replaces the default one
    assert np.array_equal(listed["coord"], data["coord"][listed["row"]])


def test_random_dropout_and_its_probability():
    data = cloud()
    dropped = apply(data, LISTED, dict(type="RandomDropout", dropout_ratio=0.25,
                                       dropout_application_ratio=1.0))  # fmt: skip
    assert len(dropped["coord"]) == 300 and len(set(dropped["row"])) == 300
    never = apply(data, dict(type="RandomDropout", dropout_ratio=0.25,
                             dropout_application_ratio=0.0))  # fmt: skip
    assert np.array_equal(never["coord"], data["coord"])


def test_sphere_crop_keeps_the_nearest_points():
    data = cloud()
    kept = apply(data, LISTED, dict(type="SphereCrop", point_max=50, mode="center"))
    distance = np.linalg.norm(data["coord"] - data["coord"][200], axis=1)
    assert set(kept["row"]) == set(np.argsort(distance)[:50])
    assert len(apply(data, dict(type="SphereCrop", sample_rate=0.5))["coord"]) == 200
    assert len(apply(data, dict(type="SphereCrop", point_max=400))["coord"]) == 400


@pytest.mark.parametrize(
    "axis, image", [("x", [0, 1, 0]), ("y", [0, 0, -1]), ("z", [0, 1, 0])], ids="xyz"
)
def test_random_rotate_takes_units_of_pi(axis, image):
    start = [0, 0, -1] if axis == "x" else [1, 0, 0]
    data = dict(
        coord=np.array([start, [0, 0, 0]], np.float32), normal=np.array([start] * 2, np.float32)
    )
    config = dict(type="RandomRotate", angle=[0.5, 0.5], axis=axis, center=[0, 0, 0],
                  always_apply=True)  # fmt: skip
    turned = apply(data, config)
    assert np.allclose(turned["coord"], [image, [0, 0, 0]], atol=1e-6)
    assert np.allclose(turned["normal"], [image] * 2, atol=1e-6)


def test_random_rotate_about_the_middle_of_the_box_and_its_probability():
    data = cloud()
    turned = apply(data, dict(type="RandomRotate", angle=[1, 1], axis="z", p=1))
    middle = (data["coord"].min(0) + data["coord"].max(0)) / 2
    expected = data["coord"].copy()
    expected[:, :2] = 2 * middle[:2] - expected[:, :2]
    assert np.allclose(turned["coord"], expected, atol=1e-5)
    rotate = HOST.Compose([dict(type="RandomRotate", angle=[1, 1], center=[0, 0, 0], p=0.25)])
    moved = sum(rotate(dict(coord=np.ones((1, 3), np.float32)))["coord"][0, 0] < 0
                for _ in range(400))  # fmt: skip
    assert 60 < moved < 140


def test_center_shift():
    data = cloud()
    low, high = data["coord"].min(0), data["coord"].max(0)
    flat = apply(data, dict(type="CenterShift", apply_z=False))["coord"]
    center = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, 0])
    assert np.allclose(flat, data["coord"] - center, atol=1e-6)
    grounded = apply(data, dict(type="CenterShift", apply_z=True))["coord"]
    assert grounded[:, 2].min() == pytest.approx(0, abs=1e-6)


def test_scale_flip_jitter_color():
    data = cloud()
    coord = data["coord"]
    ratio = apply(data, dict(type="RandomScale", scale=[1.2, 1.3]))["coord"] / coord
    assert 1.2 <= ratio.mean() <= 1.3 and np.allclose(ratio, ratio[0, 0], atol=1e-4)
    ratio = apply(data, dict(type="RandomScale", scale=[1.2, 1.3], anisotropic=True))["coord"]
    ratio = ratio / coord
    assert np.allclose(ratio, ratio[0], atol=1e-4) and len(set(ratio[0].round(5))) == 3
    flipped = apply(data, dict(type="RandomFlip", p=1))
    assert np.allclose(flipped["coord"], coord * [-1, -1, 1])
    assert np.allclose(flipped["normal"], data["normal"] * [-1, -1, 1])
    noise = apply(data, dict(type="RandomJitter", sigma=0.02, clip=0.03))["coord"] - coord
    assert np.abs(noise).max() <= 0.03 + 1e-6 and 0.012 < noise.std() < 0.02
    assert np.allclose(apply(data, dict(type="NormalizeColor"))["color"], data["color"] / 255)


def test_copy_and_update():
    data = cloud()
    copied = HOST.Compose([dict(type="Copy", keys_dict=dict(coord="origin_coord"))])(data)
    copied["coord"][:] = 0
    assert not np.array_equal(copied["origin_coord"], copied["coord"])
    default = apply(cloud(), dict(type="Copy"))
    assert np.array_equal(default["origin_segment"], default["segment"])
    updated = apply(cloud(), dict(type="Update", keys_dict=dict(grid_size=0.3, extra=[1])))
    assert updated["grid_size"] == 0.3 and updated["extra"] == [1]


def test_to_tensor_types():
    data = dict(
        coord=np.zeros((2, 3), np.float64),
        segment=np.zeros(2, np.int32),
        byte=np.zeros(2, np.uint8),
        mask=np.zeros(2, bool),
        count=3,
        size=0.5,
        name="scene",
        nested=dict(a=np.ones(1, np.float32)),
        listed=[np.ones(1, np.int16)],
        done=torch.zeros(1, dtype=torch.float64),
    )
    result = apply(data, dict(type="ToTensor"))
    kinds = {key: value.dtype for key, value in result.items() if torch.is_tensor(value)}
    assert kinds == dict(
        coord=torch.float32,
        segment=torch.int64,
        byte=torch.int64,
        mask=torch.bool,
        count=torch.int64,
        size=torch.float32,
        done=torch.float64,
    )
    assert result["count"].shape == (1,) and result["size"].shape == (1,)
    assert result["name"] == "scene"
    assert result["nested"]["a"].dtype == torch.float32
    assert result["listed"][0].dtype == torch.int64
    for bad in (None, np.float32(1), np.int64(1)):
        with pytest.raises(TypeError):
            apply(dict(bad=bad), dict(type="ToTensor"))


def test_collect():
    data = apply(cloud(), dict(type="ToTensor"))
    batch = apply(
        data,
        dict(type="Collect", keys=("coord", "name"), offset_keys_dict=dict(a_offset="row"),
             feat_keys=("coord", "strength")),
    )  # fmt: skip
    assert set(batch) == {"coord", "name", "a_offset", "feat"}
    assert batch["a_offset"].tolist() == [400]
    assert torch.equal(batch["feat"], torch.cat([data["coord"], data["strength"]], dim=1))
    default = apply(data, dict(type="Collect", keys="segment"))
    assert set(default) == {"segment", "offset"} and default["offset"].tolist() == [400]
    assert set(apply(data, dict(type="Collect", keys="row", offset_keys_dict=dict()))) == {"row"}
    del data["coord"]
    with pytest.raises(KeyError, match="coord"):
        apply(data, dict(type="Collect", keys="row", offset_keys_dict=dict()))


def test_collate_joins_samples():
    def sample(count, name):
        return dict(
            coord=torch.rand(count, 3),
            point_id=torch.arange(count),
            view_offset=torch.tensor([count]),
            two_offset=torch.tensor([1, count]),
            grid_size=0.3,
            name=name,
            listed=[count, 1],
        )

    samples = [sample(4, "a"), sample(2, "b")]
    batch = point_collate_fn(copy.deepcopy(samples), mix_prob=0)
    assert torch.equal(batch["coord"], torch.cat([s["coord"] for s in samples]))
    assert batch["point_id"].tolist() == [0, 1, 2, 3, 0, 1]  # ids are not shifted
    assert batch["view_offset"].tolist() == [4, 6]
    assert batch["two_offset"].tolist() == [1, 4, 5, 6]
    assert batch["grid_size"].dtype == torch.float64 and batch["grid_size"].shape == (2,)
    assert batch["name"] == ["a", "b"]
    assert batch["listed"].tolist() == [4, 1, 2, 1]
    assert torch.equal(collate_fn([torch.ones(1, 2), torch.zeros(2, 2)])[0], torch.ones(2))


@pytest.mark.parametrize(
    "counts, ends", [((4, 2, 3, 1), (6, 10)), ((4, 2, 3), (6, 9)), ((4,), (4,))]
)
def test_mixing_neighbours(counts, ends):
    samples = [
        dict(coord=torch.full((n, 3), float(n)), offset=torch.tensor([n]), name=str(n))
        for n in counts
    ]
    plain, mixed = (point_collate_fn(copy.deepcopy(samples), mix_prob=p) for p in (0, 1))
    assert torch.equal(plain["coord"], mixed["coord"]) and plain["name"] == mixed["name"]
    assert mixed["offset"].tolist() == list(ends)


@pytest.fixture
def root(tmp_path):
    labels = np.arange(30, dtype=np.int64).reshape(-1, 1) % 4
    write_scene(tmp_path / "train/a", 30, seed=0, segment=labels, boxes=np.zeros((2, 8)))
    write_scene(tmp_path / "train/b", 20, seed=1, color=np.full((20, 3), 7, np.uint8))
    write_scene(tmp_path / "val/c", 10, seed=2, pose=np.eye(4))
    (tmp_path / "few.json").write_text(json.dumps(["val/c", "train/a"]))
    return str(tmp_path)


def dataset(root, **kwargs):
    return HOST.DATASETS.build(dict(type="DefaultDataset", data_root=root, transform=[], **kwargs))


def test_default_dataset_reads_a_folder(root):
    data = dataset(root, split="train", loop=3)
    assert len(data) == 6
    samples = {data[i]["name"]: data[i] for i in range(6)}
    assert set(samples) == {"a", "b"}
    a, b = samples["a"], samples["b"]
    assert set(a) == {"coord", "strength", "segment", "instance", "name", "split"}
    assert a["coord"].dtype == np.float32 and a["strength"].shape == (30, 1)
    assert a["segment"].dtype == np.int32 and a["segment"].tolist() == [i % 4 for i in range(30)]
    assert a["instance"].dtype == np.int32 and set(a["instance"]) == {-1}
    assert set(b["segment"]) == {-1} and b["segment"].shape == (20,)
    assert b["color"].dtype == np.float32
    assert a["split"] == "train"


def test_default_dataset_reads_lists(root):
    listed = dataset(root, split="few.json")
    assert [listed[i]["name"] for i in range(2)] == ["c", "a"]
    assert "pose" in listed[0]
    both = dataset(root, split=["train", "val"])
    assert sorted(both[i]["name"] for i in range(len(both))) == ["a", "b", "c"]


def test_concat_dataset(root):
    part = dict(type="DefaultDataset", data_root=root, transform=[], split="train")
    both = HOST.DATASETS.build(
        dict(type="ConcatDataset", datasets=[part, dict(part, split="val", loop=2)], loop=2)
    )
    assert len(both) == 8
    assert [both[i]["name"] for i in (2, 3, 6, 7)] == ["c"] * 4


def test_registry_rules():
    class Thing:
        def __init__(self, size=1):
            if size > 5:
                raise ValueError("size is too large")

    HOST.TRANSFORMS.register_module("ContractThing")(Thing)
    try:
        with pytest.raises(KeyError):
            HOST.TRANSFORMS.register_module("ContractThing")(type("Other", (), {}))
        with pytest.raises(ValueError, match="Thing: size is too large"):
            HOST.TRANSFORMS.build(dict(type="ContractThing", size=9))
        with pytest.raises(KeyError, match="NoSuchThing"):
            HOST.TRANSFORMS.build(dict(type="NoSuchThing"))
        with pytest.raises(TypeError):
            HOST.TRANSFORMS.register_module("ContractFunction")(lambda data: data)
        assert HOST.TRANSFORMS.get("NoSuchThing") is None
        assert "ContractThing" in HOST.TRANSFORMS
        config = dict(type="ContractThing", size=2)
        assert isinstance(HOST.TRANSFORMS.build(config), Thing)
        assert config == dict(type="ContractThing", size=2)
    finally:
        del HOST.TRANSFORMS.module_dict["ContractThing"]
