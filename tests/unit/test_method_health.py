"""Health numbers against SciPy, NumPy and cases whose answer is known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from dos_plugin.method import ZipfSinkhorn
from dos_plugin.method.health import (
    assigned_mass,
    assignment_entropy,
    channel_std,
    dead_prototypes,
    duplicate_prototypes,
    effective_number,
    kl_divergence,
    own_mass,
    rank_me,
    softmap_entropy,
)
from dos_plugin.method.logits import Logits
from tests.references import prior_reference, unit_rows

TEMP, N, K, D = 0.07, 300, 24, 16


@pytest.fixture
def logits():
    return Logits(unit_rows(0, N, D), unit_rows(1, K, D), TEMP, block_size=77)


def plain(logits):
    return logits.feat.double() @ logits.prototypes.double().T / TEMP


def test_divergence_and_effective_number():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet([0.3] * 20), rng.dirichlet([2.0] * 20)
    assert kl_divergence(torch.tensor(p), torch.tensor(q)) == pytest.approx(entropy(p, q))
    assert effective_number(torch.tensor(p)) == pytest.approx(np.exp(entropy(p)))


@pytest.mark.parametrize("num_iters", [1, 3])
@pytest.mark.parametrize("alpha", [0.0, 1.3, 3.0])
def test_assigned_mass_is_that_after_the_last_row_scaling(logits, alpha, num_iters):
    plan, prior = plain(logits).exp(), prior_reference(K, alpha)
    for iteration in range(num_iters):
        if iteration:
            plan = plan / plan.sum(dim=0, keepdim=True) * prior
        plan = plan / plan.sum(dim=1, keepdim=True)
    mass = assigned_mass(logits, ZipfSinkhorn(alpha, num_iters).scaling(logits))
    torch.testing.assert_close(mass, plan.mean(dim=0), rtol=1e-5, atol=1e-12)
    assert mass.sum().item() == pytest.approx(1)


def test_without_iterations_the_mass_is_the_teachers_own(logits):
    expected = torch.softmax(plain(logits), dim=1).mean(dim=0)
    torch.testing.assert_close(own_mass(logits), expected, rtol=1e-5, atol=0)
    mass = assigned_mass(logits, ZipfSinkhorn(num_iters=0).scaling(logits))
    assert torch.equal(mass, own_mass(logits))


def test_dead_prototypes():
    prior, mass = prior_reference(4, 1.0), prior_reference(4, 1.0)
    assert dead_prototypes(mass, prior) == 0
    mass[1], mass[3] = 0.0099 * prior[1], 0.0101 * prior[3]
    assert dead_prototypes(mass, prior) == 1
    assert dead_prototypes(mass, prior, below=0.02) == 2


def test_duplicates_are_counted_beyond_the_first():
    prototypes = torch.eye(6)
    assert duplicate_prototypes(prototypes) == 0
    prototypes[4] = prototypes[5] = prototypes[0]
    prototypes[2] = -prototypes[1]  # opposite is not alike
    assert duplicate_prototypes(prototypes) == 2
    assert duplicate_prototypes(torch.ones(5, 4) / 2) == 4
    prototypes[3] = torch.nn.functional.normalize(prototypes[0] + 0.2 * prototypes[3], dim=0)
    assert duplicate_prototypes(prototypes) == 3
    assert duplicate_prototypes(prototypes, above=0.99) == 2


@pytest.mark.parametrize("num_iters", [0, 3])
def test_softmap_entropy(logits, num_iters):
    sinkhorn = ZipfSinkhorn(num_iters=num_iters)
    target = sinkhorn(logits.feat, logits.prototypes, TEMP).double().numpy()
    expected = entropy(target, axis=0).mean() / math.log(N)
    assert softmap_entropy(logits, sinkhorn.scaling(logits)) == pytest.approx(expected, rel=1e-5)


def test_softmap_entropy_of_collapsed_and_of_single_points():
    same = Logits(unit_rows(0, 1, D).expand(50, D), unit_rows(1, K, D), TEMP)
    for num_iters in (0, 1, 3):
        scaling = ZipfSinkhorn(num_iters=num_iters).scaling(same)
        assert softmap_entropy(same, scaling) == pytest.approx(1, abs=1e-5)
    own_points = Logits(torch.eye(8), torch.eye(8), 0.01)
    scaling = ZipfSinkhorn(alpha=0.0).scaling(own_points)
    assert softmap_entropy(own_points, scaling) == pytest.approx(0, abs=1e-6)
    alone = Logits(unit_rows(0, 1, D), unit_rows(1, K, D), TEMP)
    assert softmap_entropy(alone, ZipfSinkhorn().scaling(alone)) == 1


def test_assignment_entropy(logits):
    bias = torch.linspace(-2, 2, K)
    share = torch.softmax(plain(logits) + bias, dim=1).numpy()
    expected = entropy(share, axis=1).mean() / math.log(K)
    assert assignment_entropy(logits, bias) == pytest.approx(expected, rel=1e-5)


def test_channel_std():
    feat = unit_rows(5, 40_000, D)
    mean, smallest = channel_std(feat)
    assert mean == pytest.approx(1, abs=0.01) and 0.97 < smallest < mean
    feat[:, 3] = 0.5
    assert channel_std(feat)[1] == 0
    assert channel_std(feat[:1].expand(9, D)) == pytest.approx((0, 0), abs=1e-6)


@pytest.mark.parametrize("shape", [(200, 16), (9, 32)])
def test_rank_me(shape):
    feat = unit_rows(6, *shape) * torch.linspace(1, 0.01, shape[1])
    singular = np.linalg.svd(feat.double().numpy(), compute_uv=False)
    assert rank_me(feat) == pytest.approx(np.exp(entropy(singular)), rel=1e-5)


def test_rank_me_of_known_ranks():
    assert rank_me(torch.eye(16)) == pytest.approx(16)
    assert rank_me(unit_rows(7, 1, 16).expand(100, 16)) == pytest.approx(1, abs=1e-3)
    assert math.isnan(rank_me(torch.full((4, 3), torch.nan)))
    assert math.isnan(rank_me(torch.zeros(4, 3)))


def test_rank_me_takes_strided_rows():
    feat = unit_rows(8, 10, 4)
    assert rank_me(feat, max_rows=4) == rank_me(feat[::3])
    assert rank_me(feat, max_rows=10) == rank_me(feat)
