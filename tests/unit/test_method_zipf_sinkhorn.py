"""The Zipf prior and Zipf-Sinkhorn against hand-made values, plain loops and POT."""

import math

import numpy as np
import ot
import pytest
import torch

from dos_plugin.method import ZipfSinkhorn, zipf_prior, zipf_sinkhorn
from tests.references import prior_reference, target_reference, unit_rows

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    "num_prototypes, alpha, expected",
    [
        (2, 0.0, [1 / 2, 1 / 2]),
        (2, 1.0, [2 / 3, 1 / 3]),  # 1 : 1/2
        (3, 1.0, [6 / 11, 3 / 11, 2 / 11]),  # 1 : 1/2 : 1/3
        (4, 2.0, [144 / 205, 36 / 205, 16 / 205, 9 / 205]),  # 1 : 1/4 : 1/9 : 1/16
        (4, 0.5, [1 / 2.784457, 0.707107 / 2.784457, 0.577350 / 2.784457, 0.5 / 2.784457]),
    ],
)
def test_prior_by_hand(num_prototypes, alpha, expected):
    prior = zipf_prior(num_prototypes, alpha)
    assert prior.dtype == torch.float32
    np.testing.assert_allclose(prior.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.3, 3.0])
def test_prior_sums_to_one_and_follows_the_power_law(alpha):
    prior = zipf_prior(1024, alpha).double()
    assert prior.sum().item() == pytest.approx(1, abs=1e-6)
    # k -> 2k costs a factor 2^-alpha everywhere on the curve.
    np.testing.assert_allclose(prior[1::2] / prior[:512], 2**-alpha, rtol=1e-6)


def test_prior_with_alpha_zero_is_uniform():
    assert torch.equal(zipf_prior(8, 0.0), torch.full((8,), 0.125))


@pytest.mark.parametrize("num_prototypes", [1, 0, -3])
def test_prior_needs_two_prototypes(num_prototypes):
    with pytest.raises(
        ValueError,
        match=f"num_prototypes must be a whole number of at least 2, got {num_prototypes}",
    ):
        zipf_prior(num_prototypes, 1.3)


@pytest.mark.parametrize("alpha", [-0.1, -INF, INF, NAN])
def test_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match=f"alpha must be a number in .*, got {alpha}"):
        zipf_prior(16, alpha)
    with pytest.raises(ValueError, match=f"alpha must be a number in .*, got {alpha}"):
        ZipfSinkhorn(alpha=alpha)


CASES = [
    # points, prototypes, channels, temperature, alpha, iterations
    (1, 2, 4, 0.07, 1.3, 3),
    (2, 5, 4, 0.07, 1.3, 1),
    (30, 2, 4, 0.1, 0.0, 3),
    (50, 33, 8, 0.04, 1.3, 3),
    (50, 33, 8, 0.04, 1.3, 1),
    (9, 64, 8, 0.07, 1.6, 7),
    (200, 17, 3, 0.07, 3.0, 3),
    (200, 17, 3, 1.0, 0.5, 20),
]


@pytest.mark.parametrize("n, k, d, temp, alpha, num_iters", CASES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-7)])
def test_equals_the_matrix_form(n, k, d, temp, alpha, num_iters, dtype, tolerance):
    feat, prototypes = unit_rows(0, n, d, dtype=dtype), unit_rows(1, k, d, dtype=dtype)
    target = zipf_sinkhorn(feat, prototypes, temp, alpha, num_iters)
    assert target.dtype == dtype
    expected = target_reference(feat, prototypes, temp, alpha, num_iters)
    # Entries span many decades, so compare each with its own size.
    np.testing.assert_allclose(target.numpy(), expected.numpy(), rtol=20 * tolerance, atol=0)
    assert (target.double() - expected).abs().max() <= tolerance * expected.max()


@pytest.mark.parametrize("num_iters", [1, 3, 40])
def test_alpha_zero_is_sinkhorn_knopp(num_iters):
    """Sinkhorn-Knopp after its own definition: alternate u = r / (F v) and v = c / (F' u)."""
    feat, prototypes, temp = unit_rows(2, 40, 6), unit_rows(3, 12, 6), 0.1
    kernel = np.exp(feat.numpy().astype(np.float64) @ prototypes.numpy().T / temp)
    v = np.ones(12)
    for _ in range(num_iters):
        u = (1 / 40) / (kernel @ v)
        v = (1 / 12) / (kernel.T @ u)
    plan = u[:, None] * kernel * v
    target = zipf_sinkhorn(feat, prototypes, temp, alpha=0.0, num_iters=num_iters)
    np.testing.assert_allclose(target.numpy() / 12, plan, rtol=2e-5, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 1.3, 2.0])
@pytest.mark.parametrize("n, k, temp", [(60, 20, 0.1), (20, 60, 0.1), (40, 40, 0.2)])
def test_converges_to_the_entropic_transport_plan(alpha, n, k, temp):
    feat = unit_rows(4, n, 8, dtype=torch.float64)
    prototypes = unit_rows(5, k, 8, dtype=torch.float64)
    prior = prior_reference(k, alpha)
    plan = ot.sinkhorn(
        np.full(n, 1 / n),
        prior.numpy(),
        -(feat @ prototypes.T).numpy(),
        reg=temp,
        numItermax=20000,
        stopThr=1e-13,
    )
    target = zipf_sinkhorn(feat, prototypes, temp, alpha, num_iters=3000)
    np.testing.assert_allclose((target * prior).numpy(), plan, rtol=1e-5, atol=1e-12)
    # float32 is as close in mass, of which there is one in total.
    target = zipf_sinkhorn(feat.float(), prototypes.float(), temp, alpha, num_iters=3000)
    assert np.abs((target * prior).numpy() - plan).sum() < 1e-5


def test_columns_are_exact_and_rows_tighten():
    feat, prototypes, prior = unit_rows(6, 300, 8), unit_rows(7, 24, 8), prior_reference(24, 1.3)
    deviations = []
    for num_iters in (1, 2, 3, 5, 10, 30, 300):
        target = zipf_sinkhorn(feat, prototypes, 0.1, 1.3, num_iters).double()
        np.testing.assert_allclose(target.sum(dim=0), 1, atol=2e-6)
        # Mass of a point relative to the 1/N it should have.
        deviations.append(((target * prior).sum(dim=1) * 300 - 1).abs().mean().item())
    assert deviations == sorted(deviations, reverse=True)
    assert deviations[0] > 0.1 and deviations[-1] < 1e-4


def test_permuting_points_permutes_targets():
    feat, prototypes = unit_rows(8, 64, 8), unit_rows(9, 16, 8)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    target = zipf_sinkhorn(feat, prototypes, 0.07)
    torch.testing.assert_close(
        zipf_sinkhorn(feat[order], prototypes, 0.07), target[order], rtol=1e-5, atol=1e-9
    )
    # Prototypes are not exchangeable: the prior gives the first ones more mass.
    swapped = zipf_sinkhorn(feat, prototypes.flip(0), 0.07).flip(1)
    assert (swapped - target).abs().max() > 1e-3


def test_repeated_points_share_their_mass():
    feat, prototypes = unit_rows(10, 32, 8), unit_rows(11, 16, 8)
    once = zipf_sinkhorn(feat, prototypes, 0.07)
    twice = zipf_sinkhorn(feat.repeat(2, 1), prototypes, 0.07)
    torch.testing.assert_close(twice, once.repeat(2, 1) / 2, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("temp", [0.005, 0.01, 0.04, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_with_exact_columns_at_extreme_temperatures(temp, dtype):
    """exp(1 / 0.005) overflows float32, and so would half precision at any of these."""
    feat, prototypes = unit_rows(12, 100, 8, dtype=dtype), unit_rows(13, 16, 8, dtype=dtype)
    target = zipf_sinkhorn(feat, prototypes, temp)
    assert target.dtype == torch.float32
    np.testing.assert_allclose(target.sum(dim=0), 1, atol=1e-5)
    expected = target_reference(feat, prototypes, temp)
    # An error of 1e-7 in a cosine is one of 1e-7 / temp in a logit.
    assert (target - expected).abs().max() < 2e-6 / min(temp, 1)


def test_prototype_far_from_every_point():
    """All points at the pole opposite to the second prototype: exp(-2 / temp) underflows."""
    pole = unit_rows(14, 1, 8)
    prototypes = torch.cat([pole, -pole, unit_rows(15, 4, 8)])
    feat = torch.nn.functional.normalize(pole + 0.1 * unit_rows(16, 50, 8), dim=1)
    target = zipf_sinkhorn(feat, prototypes, 0.005)
    assert torch.isfinite(target).all() and (target >= 0).all()
    assert (target.sum(dim=0) <= 1 + 1e-5).all()


def test_float32_under_autocast():
    feat, prototypes = unit_rows(17, 64, 8), unit_rows(18, 16, 8)
    expected = zipf_sinkhorn(feat, prototypes, 0.04)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (feat @ prototypes.T).dtype == torch.bfloat16  # autocast is at work
        target = zipf_sinkhorn(feat, prototypes, 0.04)
    assert target.dtype == torch.float32
    assert torch.equal(target, expected)


def test_no_point_and_one_point():
    prototypes = unit_rows(19, 16, 8)
    assert zipf_sinkhorn(torch.zeros(0, 8), prototypes, 0.07).shape == (0, 16)
    # One point is all of every column.
    target = zipf_sinkhorn(unit_rows(20, 1, 8), prototypes, 0.07)
    torch.testing.assert_close(target, torch.ones(1, 16))


def test_no_gradient_and_inputs_untouched():
    feat = unit_rows(21, 20, 8).requires_grad_()
    prototypes = unit_rows(22, 4, 8).requires_grad_()
    assert not zipf_sinkhorn(feat, prototypes, 0.07).requires_grad
    assert torch.equal(feat, unit_rows(21, 20, 8)) and torch.equal(prototypes, unit_rows(22, 4, 8))


def test_module_equals_function():
    feat, prototypes = unit_rows(23, 40, 8), unit_rows(24, 8, 8)
    module = ZipfSinkhorn(alpha=0.6, num_iters=5, scope="cloud")
    expected = zipf_sinkhorn(feat, prototypes, 0.05, alpha=0.6, num_iters=5)
    assert torch.equal(module(feat, prototypes, 0.05), expected)
    assert torch.equal(module.prior(8), zipf_prior(8, 0.6))
    assert repr(module) == "ZipfSinkhorn(alpha=0.6, num_iters=5, scope='cloud')"


def test_defaults_of_the_method():
    module = ZipfSinkhorn()
    assert (module.alpha, module.num_iters, module.scope) == (1.3, 3, "batch")


@pytest.mark.parametrize("scope", ["scene", "", None, "Batch"])
def test_unknown_scope(scope):
    with pytest.raises(ValueError, match=f"scope must be one of .*, got {scope!r}"):
        ZipfSinkhorn(scope=scope)


def test_negative_iterations_are_refused():
    with pytest.raises(ValueError, match="num_iters must be a whole number of at least 0, got -1"):
        ZipfSinkhorn(num_iters=-1)


@pytest.mark.parametrize("temp", [1.0, 0.05, 0.01])
@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_no_iterations_are_the_plain_softmap(alpha, temp):
    feat, prototypes = unit_rows(29, 500, 8), unit_rows(30, 12, 8)
    target = zipf_sinkhorn(feat, prototypes, temp, alpha, num_iters=0)
    expected = torch.softmax(feat.double() @ prototypes.double().T / temp, dim=0)
    torch.testing.assert_close(target.double(), expected, rtol=2e-6 / temp, atol=1e-12)
    torch.testing.assert_close(target.sum(dim=0), torch.ones(12))


@pytest.mark.parametrize("temp", [0.0, -0.1, NAN, INF])
def test_temperature_out_of_range(temp):
    with pytest.raises(ValueError, match=f"temp must be a number in .*, got {temp}"):
        zipf_sinkhorn(unit_rows(25, 3, 4), unit_rows(26, 2, 4), temp)


def test_one_prototype_is_refused():
    with pytest.raises(
        ValueError, match="num_prototypes must be a whole number of at least 2, got 1"
    ):
        zipf_sinkhorn(unit_rows(27, 3, 4), unit_rows(28, 1, 4), 0.07)
