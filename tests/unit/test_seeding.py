"""Random generators are left as they were."""

import random

import numpy as np
import pytest
import torch

from dos_plugin.seeding import preserved_random, seeded


def draw():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]


@pytest.mark.parametrize("context", [preserved_random, lambda: seeded(5)])
def test_generators_are_put_back(context):
    with seeded(1):
        expected = draw()
    with seeded(1):
        with context():
            draw()
        assert draw() == expected


def test_preserved_generators_go_on_inside():
    with seeded(1):
        draw()
        expected = draw()
    with seeded(1):
        draw()
        with preserved_random():
            assert draw() == expected


def test_seeded_numbers_are_the_same_each_time():
    with seeded(5):
        first = draw()
    torch.rand(1), np.random.rand(), random.random()
    with seeded(5):
        assert draw() == first


class Devices:
    """Two generators of a GPU that this machine need not have."""

    def __init__(self, monkeypatch, initialized):
        self.states = ["a", "b"]
        for name, function in (
            ("is_initialized", lambda: initialized),
            ("get_rng_state_all", lambda: list(self.states)),
            ("set_rng_state_all", lambda states: setattr(self, "states", list(states))),
            ("manual_seed_all", lambda seed: setattr(self, "states", [seed, seed])),
        ):
            monkeypatch.setattr(torch.cuda, name, function)


def test_generators_of_gpus_are_put_back(monkeypatch):
    devices = Devices(monkeypatch, initialized=True)
    with seeded(7):
        assert devices.states == [7, 7]
    assert devices.states == ["a", "b"]
    with preserved_random():
        devices.states = ["c", "d"]
    assert devices.states == ["a", "b"]


def test_gpus_that_are_not_in_use_are_left_alone(monkeypatch):
    devices = Devices(monkeypatch, initialized=False)
    with seeded(7):
        assert devices.states == ["a", "b"]
    assert devices.states == ["a", "b"]
