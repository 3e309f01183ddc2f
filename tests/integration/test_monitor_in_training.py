"""PrototypeMonitor in trainings on small synthetic streets, healthy ones and one that collapses."""

import pytest

from dos_plugin.minihost.launch import main
from tests.tiny_run import write_config, write_scans

SIZES = "model.num_prototypes=256", "model.head.out_channels=64", "model.head.hidden_channels=64"

COLLAPSE = (
    "model.sinkhorn.num_iters=0",
    "model.momentum_base=0.0",
    "model.momentum_final=0.0",
    "optimizer.lr=0.03",
    "scheduler.max_lr=0.03",
)

HEALTHY = "optimizer.lr=0.002", "scheduler.max_lr=0.002", "model.momentum_base=0.99"


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streets")
    write_scans(folder, "train", 8)
    return folder


@pytest.fixture
def train(scans, tmp_path):
    """Trains with options and the hook; returns its log."""

    def run(*options: str, hook: str = "interval=5", epochs: int = 7) -> str:
        config = write_config(tmp_path / "run", scans)
        hooks = f'\nhooks.append(dict(type="PrototypeMonitor", {hook}))\n'
        config.write_text(config.read_text() + hooks)
        fixed = f"epoch={epochs}", f"eval_epoch={epochs}", "num_worker=0", *SIZES
        main(["--config-file", str(config), "--options", *fixed, *options])
        return (tmp_path / "run/train.log").read_text()

    return run


def test_a_run_made_to_collapse_is_warned_of(train):
    log = train(*COLLAPSE)
    warnings = [line for line in log.splitlines() if "WARNING" in line]
    # At such rates the features jump about, but in next to no dimension.
    assert any("rankme is 1." in w or "rankme is 2." in w for w in warnings)
    assert not any("prior_kl is" in w for w in warnings)  # nothing asks for the prior
    assert all("Try " in w and "docs/monitoring.md" in w for w in warnings)


@pytest.mark.parametrize("seed, alpha", [(0, 1.3), (1, 0.0), (2, 3.0)])
def test_healthy_runs_are_not_warned_of(train, seed, alpha):
    log = train(*HEALTHY, f"seed={seed}", f"model.sinkhorn.alpha={alpha}")
    assert "WARNING" not in log
    assert log.count("Monitor: feature std") == 7


@pytest.mark.parametrize("target", ["clustering", "regression"])
def test_the_other_targets(train, target):
    log = train(*HEALTHY, f"model.target={target}", epochs=2)
    line = next(line for line in log.splitlines() if "Monitor: feature std" in line)
    assert ("KL to prior" in line) == (target == "clustering")
    assert "matched 100% in the same view" in line and "visible" in line
