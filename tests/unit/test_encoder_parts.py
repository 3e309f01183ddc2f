"""Large scans in parts: every voxel once, never too many at once, with what lies near."""

import numpy as np
import pytest

from dos_plugin.encoder.parts import MARGIN, parts


def street(count, seed=0):
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, [2000, 300, 20], (2 * count, 3))
    return np.unique(cells, axis=0)[rng.permutation(count)]


@pytest.mark.parametrize("limit", [2, 100, 1000])
def test_every_voxel_is_in_one_part_and_passes_are_bounded(limit):
    cells = street(3000)
    seen = np.zeros(len(cells), dtype=int)
    for rows, own in parts(cells, limit):
        assert len(rows) <= limit and len(np.unique(rows)) == len(rows)
        seen[rows[own]] += 1
    assert (seen == 1).all()


def test_a_small_scan_is_one_pass():
    ((rows, own),) = parts(street(1000), 1000)
    np.testing.assert_array_equal(rows, np.arange(1000))
    assert own.all()


def test_a_part_comes_with_its_surroundings():
    cells = street(3000)
    complete = 0
    for rows, own in parts(cells, 1600):
        box = cells[rows[own]].min(0), cells[rows[own]].max(0)
        near = ((cells >= box[0] - MARGIN) & (cells <= box[1] + MARGIN)).all(1)
        assert near[rows].all()
        assert own.sum() <= 800 and len(rows) > own.sum()
        complete += len(rows) == near.sum()
    assert complete
