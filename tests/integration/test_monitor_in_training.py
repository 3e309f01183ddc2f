"""PrototypeMonitor in trainings on small synthetic streets: of features that cannot have collapsed,
and of some that have."""

import pytest
import torch
from torch.nn.functional import normalize

from dos_plugin.hooks.watch import bare_model
from dos_plugin.host import HOST
from dos_plugin.minihost.launch import main
from tests.tiny_run import write_config, write_scans

SIZES = "model.num_prototypes=256", "model.head.out_channels=64", "model.head.hidden_channels=64"
# Weights stay as they are drawn, so that nothing hangs on what a short training makes of them.
FIXED = "optimizer.lr=0.0", "scheduler.max_lr=0.0"
WARNED_OF = ("feat_std", "rankme", "target_entropy")


class FixedProjections(HOST.HookBase):
    """Projections that are the same for all points, or as even as chance has them at each place."""

    def __init__(self, collapsed):
        super().__init__()
        self.collapsed = collapsed

    def before_train(self):
        model = bare_model(self.trainer)
        embed = model.embed
        mix = torch.randn(3, model.head_channels, generator=torch.Generator().manual_seed(0))

        def fixed(branch, clouds, num_clouds):
            projections, row_of_point = embed(branch, clouds, num_clouds)
            coord = projections.new_zeros(len(projections), 3)
            coord[row_of_point] = clouds.grid_coord.float()
            even = normalize(torch.cos(7 * coord @ mix.to(coord)), dim=1)
            wanted = torch.ones_like(even) / even.shape[1] ** 0.5 if self.collapsed else even
            return wanted + 0 * projections, row_of_point

        model.embed = fixed


if "FixedProjections" not in HOST.HOOKS.module_dict:
    HOST.HOOKS.register_module("FixedProjections")(FixedProjections)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streets")
    write_scans(folder, "train", 8)
    return folder


@pytest.fixture
def train(scans, tmp_path):
    """Trains with options and the hooks; returns its log."""

    def run(*options: str, collapsed: bool | None = None, epochs: int = 7) -> str:
        config = write_config(tmp_path / "run", scans)
        hooks = '\nhooks.append(dict(type="PrototypeMonitor", interval=5))\n'
        if collapsed is not None:
            hooks += f'hooks.append(dict(type="FixedProjections", collapsed={collapsed}))\n'
        config.write_text(config.read_text() + hooks)
        fixed = f"epoch={epochs}", f"eval_epoch={epochs}", "num_worker=0", *SIZES
        main(["--config-file", str(config), "--options", *fixed, *options])
        return (tmp_path / "run/train.log").read_text()

    return run


@pytest.mark.parametrize("num_iters", [3, 0])
def test_collapsed_features_are_warned_of(train, num_iters):
    log = train(*FIXED, f"model.sinkhorn.num_iters={num_iters}", collapsed=True)
    warnings = [line for line in log.splitlines() if "WARNING" in line]
    for name in WARNED_OF:  # of each once
        assert len([w for w in warnings if f"{name} is" in w]) == 1, (name, warnings)
    if num_iters == 0:  # nothing asks for the prior
        assert not any("prior_kl is" in w for w in warnings)
    assert all("Try " in w and "docs/monitoring.md" in w for w in warnings)


@pytest.mark.parametrize("alpha", [0.0, 1.3, 3.0])
def test_even_features_are_not_warned_of(train, alpha):
    log = train(*FIXED, f"model.sinkhorn.alpha={alpha}", collapsed=False)
    assert "WARNING" not in log
    assert log.count("Monitor: feature std") == 7


@pytest.mark.parametrize("target", ["clustering", "regression"])
def test_the_other_targets(train, target):
    log = train(f"model.target={target}", epochs=2)
    line = next(line for line in log.splitlines() if "Monitor: feature std" in line)
    assert ("KL to prior" in line) == (target == "clustering")
    assert "matched 100% in the same view" in line and "visible" in line
