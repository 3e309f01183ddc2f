"""Splits as the data sets of both hosts read them.

Run on the embedded host by default, and on Pointcept by
``DOS_HOST=pointcept python -m dos_plugin.cpu -m pytest tests/contract/test_few_labels.py``.
"""

import importlib

import numpy as np
import pytest

from dos_plugin.commands.split import write_split
from dos_plugin.host import HOST
from tests.dataset_layouts import (
    write_nuscenes,
    write_scannet,
    write_semantic_kitti,
    write_waymo,
)

if HOST.name != "minihost":
    importlib.import_module(f"{HOST.name}.datasets")  # registers the data sets

DATASETS = {
    "NuScenesDataset": (write_nuscenes, "train", "val"),
    "SemanticKITTIDataset": (write_semantic_kitti, "train", "val"),
    "WaymoDataset": (write_waymo, "training", "validation"),
    "ScanNetDataset": (write_scannet, "train", "val"),
    "ScanNet200Dataset": (write_scannet, "train", "val"),
}


def samples(kind, root, split):
    """The samples of a data set by sequence or folder and name."""
    config = dict(type=kind, data_root=str(root), split=split, transform=[], test_mode=False)
    data = HOST.DATASETS.build(config)
    found = {data[i]["name"]: data[i] for i in range(len(data))}
    assert len(found) == len(data)
    return found


def check_equal(sample, other):
    assert set(sample) == set(other)
    for key, value in sample.items():
        assert np.array_equal(value, other[key]), key


@pytest.mark.parametrize("kind", DATASETS)
def test_data_sets_read_the_chosen_scans_and_all_of_validation(tmp_path, kind):
    write, train, val = DATASETS[kind]
    write(tmp_path, 12)
    everything = samples(kind, tmp_path, train)
    few = write_split(tmp_path, 1 / 3, seed=1)
    found = samples(kind, few.out, train)
    assert sorted(found) == few.chosen and len(found) == len(everything) // 3
    for name, sample in found.items():
        check_equal(sample, everything[name])
        assert set(sample["segment"]) != {0}  # what SemanticKITTIDataset gives without a label file
    validation = samples(kind, tmp_path, val)
    again = samples(kind, few.out, val)
    assert set(again) == set(validation)
    for name, sample in again.items():
        check_equal(sample, validation[name])


def test_default_dataset(tmp_path):
    write_scannet(tmp_path, 12)
    few = write_split(tmp_path, 0.5)
    assert sorted(samples("DefaultDataset", few.out, "train")) == few.chosen
