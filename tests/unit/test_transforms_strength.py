"""RandomStrength: one factor for a scene, noise for each point."""

import numpy as np
import pytest

from dos_plugin.transforms.strength import RandomStrength


@pytest.fixture
def strength():
    np.random.seed(0)
    return np.random.default_rng(0).random((20_000, 1)).astype(np.float32)


def test_one_factor_for_all_points(strength):
    factors = []
    for _ in range(200):
        ratio = RandomStrength((0.5, 2.0), sigma=0.0)(dict(strength=strength))["strength"]
        ratio = ratio / strength
        assert np.ptp(ratio) < 1e-5
        factors.append(ratio[0, 0])
    assert 0.5 <= min(factors) < 0.6 and 1.9 < max(factors) <= 2.0


def test_noise_of_the_given_size_for_each_point(strength):
    drawn = RandomStrength((1, 1), sigma=0.1)(dict(strength=strength))["strength"]
    noise = drawn - strength
    assert drawn.dtype == np.float32
    assert abs(noise.mean()) < 0.005 and abs(noise.std() - 0.1) < 0.005


def test_probability_and_what_is_missing(strength):
    same = RandomStrength(p=0.0)(dict(strength=strength))["strength"]
    assert same is strength
    with pytest.raises(KeyError, match="has no 'strength'"):
        RandomStrength()(dict(coord=strength))


@pytest.mark.parametrize(
    "option", [dict(scale=(1.3, 0.7)), dict(scale=1.0), dict(sigma=-1), dict(p=1.5), dict(p="1")]
)
def test_wrong_options_are_named(option):
    with pytest.raises(ValueError, match=f"RandomStrength: {next(iter(option))}"):
        RandomStrength(**option)
