"""Use of prototypes, against the dense plan and SciPy."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from dos_plugin.method.health import effective_number, kl_divergence
from dos_plugin.probing.prototypes import load_projector, measure_usage, strongest_prototype
from dos_plugin.probing.scans import ScanSource
from dos_plugin.runs.run import open_run
from tests.tiny_run import write_run, write_scans


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    for split in ("train", "val"):
        write_scans(root / "data", split, 2)
    return open_run(write_run(root / "run", root / "data"))


@pytest.fixture(scope="module")
def val(run):
    return list(ScanSource(run, split="val"))


def test_divergence_and_effective_number_against_scipy():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(30)), rng.dirichlet(np.ones(30))
    p[3] = 0
    p /= p.sum()
    assert kl_divergence(torch.tensor(p), torch.tensor(q)) == pytest.approx(entropy(p, q))
    assert effective_number(torch.tensor(p)) == pytest.approx(np.exp(entropy(p)))
    assert effective_number(torch.full((8,), 1 / 8)) == pytest.approx(8)


def test_usage_follows_from_the_dense_plan(run, val):
    """Row-scaled F diag(v) written out, with the scaling repeated by hand."""
    projector = load_projector(run)
    usage = measure_usage(projector, val, rows=10**6)
    feat = torch.cat([projector.project(scan) for scan in val]).double()
    torch.testing.assert_close(feat.norm(dim=1), torch.ones(len(feat), dtype=torch.float64))
    plan = (feat @ projector.prototypes.double().T / projector.temp).exp()
    own = (plan / plan.sum(1, keepdim=True)).mean(0)
    torch.testing.assert_close(usage.own.double(), own, rtol=1e-4, atol=1e-7)
    rank = torch.arange(1, 21, dtype=torch.float64)
    prior = rank**-1.3 / (rank**-1.3).sum()
    torch.testing.assert_close(usage.prior.double(), prior, rtol=1e-5, atol=0)
    for _ in range(3):
        plan = plan / plan.sum(1, keepdim=True) / len(plan)
        assigned = plan.sum(0)
        winner = plan.argmax(1)
        plan = plan / assigned * prior
    torch.testing.assert_close(usage.assigned.double(), assigned, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(usage.feat_std.double(), feat.std(0), rtol=1e-4, atol=1e-6)
    found = strongest_prototype(projector, val[0], usage.scaling_bias)
    assert (found == winner[: len(found)]).double().mean() > 0.999
    assert usage.figures()["feature_std_isotropic"] == pytest.approx(12**-0.5)
