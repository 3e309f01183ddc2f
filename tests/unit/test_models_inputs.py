"""What a config feeds a backbone with."""

import pytest

from dos_plugin.models.inputs import datasets, feature_keys, flat_steps, grid_size


def test_feature_keys_come_from_collect():
    pretrain = dict(type="Collect", keys=(), view1_feat_keys=("view1_strength", "view1_height"))
    assert feature_keys([pretrain]) == ("strength", "height")
    assert feature_keys([dict(type="Collect", keys=(), feat_keys=("coord",))]) == ("coord",)
    with pytest.raises(ValueError, match="no Collect with view1_feat_keys"):
        feature_keys([dict(type="ToTensor")])


def test_data_sets_of_a_config_one_by_one():
    first, second, val = ({"type": name} for name in "abc")
    data = {"train": {"type": "ConcatDataset", "datasets": [first, second]}, "val": val}
    assert [tuple(found) for found in datasets({"data": data}, ("train", "val", "test"))] == [
        ("train", "data.train.datasets.0", first),
        ("train", "data.train.datasets.1", second),
        ("val", "data.val", val),
    ]
    assert list(datasets({}, ("train",))) == []


def test_the_last_grid_is_that_of_the_backbone():
    grid = dict(type="GridSample", grid_size=0.05)
    views = dict(type="TwoViews", view_transform=[dict(grid, grid_size=0.1), dict(type="X")])
    assert grid_size([grid, dict(type="ToTensor")]) == 0.05
    assert grid_size([grid, views]) == 0.1
    assert [step["type"] for step in flat_steps([grid, views])] == ["GridSample"] * 2 + ["X"]
    with pytest.raises(ValueError, match="has no GridSample"):
        grid_size([dict(type="ToTensor")])
