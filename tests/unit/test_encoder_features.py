"""Colours and likeness of features, against plain numpy."""

import numpy as np
import pytest
import torch

from dos_plugin.encoder.features import Features
from dos_plugin.encoder.scan import from_arrays


def features(feat, voxel=None, seed=0):
    voxel = np.arange(len(feat)) if voxel is None else voxel
    coord = np.random.default_rng(seed).uniform(-5, 5, (len(voxel), 3))
    return Features(
        scan=from_arrays(coord),
        per_voxel=torch.tensor(feat, dtype=torch.float32),
        voxel_coord=torch.zeros(len(feat), 3),
        voxel=torch.as_tensor(voxel),
        grid_size=0.1,
    )


def test_similarity_is_the_cosine_of_points():
    rng = np.random.default_rng(0)
    feat, voxel = rng.normal(size=(30, 7)), rng.integers(0, 30, 100)
    mine, other = features(feat, voxel), features(rng.normal(size=(20, 7)))
    unit = feat / np.linalg.norm(feat, axis=1, keepdims=True)
    np.testing.assert_allclose(mine.similar_to(4), unit[voxel] @ unit[voxel[4]], atol=1e-6)
    assert mine.similar_to(4)[4] == pytest.approx(1)
    one = other.per_voxel[3].numpy() / np.linalg.norm(other.per_voxel[3])
    np.testing.assert_allclose(mine.similar_to(3, of=other), unit[voxel] @ one, atol=1e-6)
    for index in (-1, 100):
        with pytest.raises(ValueError, match=f"index: {index}, but scan has 100 points"):
            mine.similar_to(index)
    with pytest.raises(ValueError, match="of: features of 5 channels, expected 7"):
        mine.similar_to(0, of=features(rng.normal(size=(20, 5))))


def test_colours_are_the_three_largest_components():
    """Three uncorrelated channels repeated 9, 6 and 3 times: each component is one of them."""
    rng = np.random.default_rng(1)
    source = rng.uniform(0, 1, (500, 3))
    source = np.linalg.qr(source - source.mean(0))[0]
    feat = np.repeat(source, [9, 6, 3], axis=1) * rng.uniform(0.1, 10, 18) + rng.normal(size=18)
    colors = features(feat).colors()
    assert colors.dtype == np.uint8 and colors.shape == (500, 3)
    low, high = np.percentile(source, [1, 99], axis=0)
    expected = 50 + 205 * np.clip((source - low) / (high - low), 0, 1)
    for channel in range(3):
        likeness = np.corrcoef(colors[:, channel], expected[:, channel])[0, 1]
        assert abs(likeness) > 0.999, channel


def test_a_colour_means_the_same_in_another_scan():
    rng = np.random.default_rng(2)
    feat = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6))
    mine, some = features(feat), features(feat[100:160])
    np.testing.assert_array_equal(some.colors(like=mine), mine.colors()[100:160])
    assert not np.array_equal(some.colors(), mine.colors()[100:160])


def test_colours_of_little():
    assert features(np.ones((1, 4))).colors().shape == (1, 3)
    same = features(np.full((50, 4), 0.1)).colors()
    assert len(np.unique(same, axis=0)) == 1
    assert features(np.random.default_rng(0).normal(size=(50, 2))).colors().shape == (50, 3)
