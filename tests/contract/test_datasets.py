"""The data sets of the configs, and the transforms of colours and shapes, on both hosts.

Run on the embedded host by default, and on Pointcept by
``DOS_HOST=pointcept python -m dos_plugin.cpu -m pytest tests/contract/test_datasets.py``.
"""

import copy
import importlib
import random

import numpy as np
import pytest
import torch

from dos_plugin.host import HOST
from tests.dataset_layouts import (
    street,
    write_nuscenes,
    write_scannet,
    write_semantic_kitti,
    write_waymo,
)

if HOST.name != "minihost":
    importlib.import_module(f"{HOST.name}.datasets")  # registers the data sets


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def build(kind, root, **options):
    config = dict(type=kind, data_root=str(root), transform=[], test_mode=False, **options)
    return HOST.DATASETS.build(config)


def apply(data, *transforms):
    return HOST.Compose(list(transforms))(copy.deepcopy(data))


def check_street(sample, index, classes, segment_dtype):
    coord, strength, kind = street(index)
    assert sample["coord"].dtype == sample["strength"].dtype == np.float32
    np.testing.assert_array_equal(sample["coord"], coord)
    assert sample["strength"].shape == strength.shape
    assert sample["segment"].dtype == segment_dtype
    np.testing.assert_array_equal(sample["segment"], np.array(classes)[kind])


def test_nuscenes(tmp_path):
    write_nuscenes(tmp_path, 3)
    data = build("NuScenesDataset", tmp_path, split="train", loop=2)
    assert len(data) == 6
    sample = data[4]
    assert set(sample) == {"coord", "strength", "segment", "name"}
    assert sample["name"] == "train-token-1"
    check_street(sample, 1, [10, 3, 15], np.int64)
    np.testing.assert_allclose(sample["strength"], street(1)[1], atol=1e-6)
    both = build("NuScenesDataset", tmp_path, split=["train", "val"])
    assert [both[i]["name"] for i in (2, 3)] == ["train-token-2", "val-token-0"]


def test_nuscenes_labels():
    """16 classes, each of them reached, and 15 labels that are ignored."""
    assert HOST.DATASETS.get("NuScenesDataset") is not None
    if HOST.name == "minihost":
        from dos_plugin.minihost import NuScenesDataset

        table = list(NuScenesDataset.CLASS)
    else:
        mapping = HOST.DATASETS.get("NuScenesDataset").get_learning_map(-1)
        table = [mapping[label] for label in range(32)]
    groups = {
        0: [9], 1: [14], 2: [15, 16], 3: [17], 4: [18], 5: [21], 6: [2, 3, 4, 6], 7: [12],
        8: [22], 9: [23], 10: [24], 11: [25], 12: [26], 13: [27], 14: [28], 15: [30],
    }  # fmt: skip
    expected = [-1] * 32
    for label, members in groups.items():
        for member in members:
            expected[member] = label
    assert table == expected


def test_semantic_kitti(tmp_path):
    write_semantic_kitti(tmp_path, 3)
    data = build("SemanticKITTIDataset", tmp_path, split="train")
    assert [data[i]["name"] for i in range(3)] == ["00_000000", "01_000001", "02_000002"]
    sample = data[1]
    assert set(sample) == {"coord", "strength", "segment", "name"}
    check_street(sample, 1, [8, 0, 14], np.int32)
    np.testing.assert_array_equal(sample["strength"], street(1)[1])
    assert len(build("SemanticKITTIDataset", tmp_path, split="val")) == 3
    for path in tmp_path.glob("dataset/sequences/08/labels/*"):
        path.unlink()
    unlabelled = build("SemanticKITTIDataset", tmp_path, split="val")[0]
    assert set(unlabelled["segment"]) == {0}  # and not -1: a trap of the host


def test_waymo(tmp_path):
    write_waymo(tmp_path, 3)
    data = build("WaymoDataset", tmp_path, split="training")
    names = [data[i]["name"] for i in range(3)]
    assert names == ["segment-0_00000000", "segment-0_00000001", "segment-1_00000000"]
    sample = data[1]
    assert set(sample) == {"coord", "strength", "segment", "instance", "pose", "name", "split"}
    check_street(sample, 1, [17, 0, 14], np.int32)
    np.testing.assert_array_equal(sample["strength"], np.tanh(street(1)[1]))
    assert sample["pose"].shape == (4, 4)
    assert len(build("WaymoDataset", tmp_path, split=["training", "validation"])) == 6


@pytest.mark.parametrize("kind, table", [("ScanNetDataset", 6), ("ScanNet200Dataset", 3)])
def test_scannet(tmp_path, kind, table):
    write_scannet(tmp_path, 4)
    data = build(kind, tmp_path, split=["train", "val"])
    assert sorted(data[i]["split"] for i in range(4)) == ["train", "train", "val", "val"]
    sample = data[0]
    keys = {"coord", "color", "normal", "segment", "instance", "name", "split"}
    assert set(sample) == keys and sample["name"].startswith("scene000")
    assert all(sample[key].dtype == np.float32 for key in ("coord", "color", "normal"))
    assert sample["segment"].dtype == sample["instance"].dtype == np.int32
    assert sample["segment"][-1] == table and sample["color"].max() > 200


def colors(count=2000):
    color = np.random.default_rng(1).uniform(20, 235, (count, 3)).astype(np.float32)
    return dict(coord=np.zeros((count, 3), np.float32), color=color)


def test_color_translation():
    data = colors()
    shift = apply(data, dict(type="ChromaticTranslation", p=1, ratio=0.05))["color"] - data["color"]
    assert np.allclose(shift, shift[0], atol=1e-3) and len(set(shift[0].round(3))) == 3
    assert 0 < np.abs(shift).max() <= 0.05 * 255 + 1e-3
    same = apply(data, dict(type="ChromaticTranslation", p=0, ratio=0.05))["color"]
    np.testing.assert_array_equal(same, data["color"])


def jitter(data, **options):
    result = apply(data, dict(type="RandomColorJitter", p=1, **options))["color"]
    assert result.dtype == np.float32 and result.min() >= 0 and result.max() <= 255
    return result.astype(np.float64)


def test_color_jitter():
    data = colors()
    color = data["color"].astype(np.float64)
    luma = color @ [0.2989, 0.587, 0.114]
    assert np.allclose(jitter(data, brightness=[0.8, 0.8]), 0.8 * color, atol=1e-3)
    expected = np.clip(1.2 * color - 0.2 * luma.mean(), 0, 255)
    assert np.allclose(jitter(data, contrast=[1.2, 1.2]), expected, atol=0.05)
    expected = np.clip(0.5 * color + 0.5 * luma[:, None], 0, 255)
    assert np.allclose(jitter(data, saturation=[0.5, 0.5]), expected, atol=0.05)
    third = jitter(data, hue=[1 / 3, 1 / 3])  # red becomes green, and so on
    assert np.allclose(third, np.roll(color, 1, axis=1), atol=0.05)
    factors = [jitter(data, brightness=0.4)[0, 0] / color[0, 0] for _ in range(20)]
    assert 0.6 <= min(factors) < 0.9 < 1.0 < max(factors) <= 255 / 20
    np.testing.assert_allclose(jitter(data), color, atol=1e-3)
    with pytest.raises(ValueError):
        HOST.Compose([dict(type="RandomColorJitter", hue=[-1, 1])])


def test_elastic_distortion_is_smooth_and_of_the_right_size():
    line = np.zeros((4000, 3), np.float32)
    line[:, 0] = np.linspace(0, 40, 4000)
    moves = []
    for _ in range(20):
        moved = apply(dict(coord=line), dict(type="ElasticDistortion", distortion_params=[[1, 2]]))
        moves.append(moved["coord"] - line)
    moves = np.array(moves)
    assert moves.dtype == np.float32
    assert np.abs(np.diff(moves, axis=1)).max() < 0.05  # neighbours, 1 cm apart, stay together
    # a 3x3x3 box twice leaves (19/81)**3 of the variance, except at the border and between nodes
    deviation = moves[:, 500:-500:100, 0].std()
    assert 0.1 < deviation < 2 * (19 / 81) ** 1.5 * 1.3
    assert all(abs(move).max() > 0 for move in moves[:3])
