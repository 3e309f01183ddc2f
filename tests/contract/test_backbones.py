"""The embedded host's backbones do what the real host's do: names, values, gradients, poolings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("spconv")
pytest.importorskip("torch_pointcloud")

from dos_plugin.minihost.backbones import BACKBONES

sys.path.insert(0, str(Path(__file__).parent))

from host_backbones import arguments, run

SCRIPT = Path(__file__).with_name("host_backbones.py")
HOST = Path(os.environ.get("POINTCEPT_ROOT") or Path.home() / ".cache/dos-plugin/Pointcept")

if not (HOST / "pointcept").is_dir():
    pytest.skip(
        f"the real host is not at {HOST}; set POINTCEPT_ROOT to a checkout of Pointcept v1.7.0",
        allow_module_level=True,
    )

SMALL = dict(
    in_channels=4,
    stride=(2, 2),
    enc_depths=(2, 1, 3),
    enc_channels=(16, 24, 32),
    enc_num_head=(2, 3, 4),
    enc_patch_size=(64, 64, 64),
    dec_depths=(2, 1),
    dec_channels=(16, 24),
    dec_num_head=(2, 3),
    dec_patch_size=(64, 64),
    drop_path=0.3,
    enable_flash=False,
)
UNET = dict(
    in_channels=4, base_channels=8, channels=(8, 16, 24, 24, 16, 12), layers=(1, 2, 1, 1, 2, 1)
)
ALL = ("z", "z-trans", "hilbert", "hilbert-trans")


def make_batch(sizes, seed=0, **extra):
    """Clouds of distinct cells in random row order; the last one is small."""
    gen = torch.Generator().manual_seed(seed)
    grids = []
    for n in sizes:
        cells = torch.rand(3 * n, 3, generator=gen) * torch.tensor([40.0, 30.0, 8.0])
        cells = torch.unique(cells.long(), dim=0)
        grids.append(cells[torch.randperm(len(cells), generator=gen)[:n]])
    grid = torch.cat(grids)
    return dict(
        feat=torch.randn(len(grid), 4, generator=gen),
        coord=0.3 * (grid + torch.rand(grid.shape, generator=gen)),
        grid_coord=grid,
        offset=torch.tensor([len(g) for g in grids]).cumsum(0),
        **extra,
    )


def make_cases():
    batch = make_batch((300, 700, 90))
    masked = make_batch((300, 260), seed=1)
    masked["mask"] = torch.arange(len(masked["feat"])) % 3 == 0
    cases = {}
    for kind in ("PT-v3m1", "PT-v3m2"):
        for enc_mode in (True, False):
            base = dict(SMALL, type=kind, enc_mode=enc_mode)
            side = "enc" if enc_mode else "dec"
            cases[f"{kind}-{side}-fixed"] = (dict(base, shuffle_orders=False, order=ALL), batch)
            cases[f"{kind}-{side}-shuffled"] = (dict(base, order=ALL), batch)
        for order in ALL:
            cfg = dict(SMALL, type=kind, enc_mode=True, shuffle_orders=False, order=(order,))
            cases[f"{kind}-{order}"] = (cfg, batch)
        cases[f"{kind}-rpe"] = (
            dict(SMALL, type=kind, enable_rpe=True, upcast_attention=True, upcast_softmax=True),
            batch,
        )
        cases[f"{kind}-postnorm"] = (dict(SMALL, type=kind, pre_norm=False, qk_scale=0.5), batch)
    m2 = dict(SMALL, type="PT-v3m2")
    cases["PT-v3m2-mask"] = (dict(m2, enc_mode=True, mask_token=True, layer_scale=0.1), masked)
    cases["PT-v3m2-frozen"] = (dict(m2, freeze_encoder=True, qkv_bias=False), batch)
    cases["SpUNet-v1m1"] = (dict(UNET, type="SpUNet-v1m1", num_classes=0), batch)
    cases["SpUNet-v1m1-logits"] = (dict(UNET, type="SpUNet-v1m1", num_classes=5), batch)
    cases["SpUNet-v1m1-enc"] = (
        dict(UNET, type="SpUNet-v1m1", num_classes=0, enc_mode=True),
        batch,
    )
    return {name: dict(cfg=cfg, batch=batch) for name, (cfg, batch) in cases.items()}


CASES = make_cases()


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """What the real host's backbones gave for all cases, in one process of its own."""
    folder = tmp_path_factory.mktemp("host")
    torch.save(CASES, folder / "cases.pt")
    env = dict(os.environ, PYTHONPATH=str(HOST), OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "dos_plugin.cpu", SCRIPT, "cases.pt", "results.pt"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(folder / "results.pt")


def build(name):
    """A fresh backbone of a case, drawn from the seed that the host's script uses."""
    cfg = dict(CASES[name]["cfg"])
    torch.manual_seed(3)
    return BACKBONES[cfg.pop("type")](**cfg)


def close(ours, theirs, what):
    assert ours.keys() == theirs.keys(), what
    for key, expected in theirs.items():
        size = float(expected.abs().max()) if len(expected.shape) else 1.0
        torch.testing.assert_close(
            ours[key],
            expected,
            rtol=1e-4,
            atol=1e-4 * min(1.0, size),
            msg=lambda m, k=key: f"{what} {k}: {m}",
        )


@pytest.mark.parametrize("kind", BACKBONES)
def test_arguments_and_defaults_are_the_hosts(host, kind):
    assert arguments(BACKBONES[kind]) == host["signatures"][kind]


@pytest.mark.parametrize("name", CASES)
def test_state_is_the_hosts(host, name):
    """Same keys in the same order, same shapes, frozen parameters and initial draw."""
    model, theirs = build(name), host["results"][name]
    state = model.state_dict()
    assert list(state) == list(theirs["state"])
    assert [key for key, _ in model.named_parameters()] == theirs["order"]
    frozen = [key for key, p in model.named_parameters() if not p.requires_grad]
    assert frozen == theirs["frozen"]
    close(state, theirs["state"], "fresh")


@pytest.mark.parametrize("name", CASES)
def test_values_gradients_and_buffers_are_the_hosts(host, name):
    model, theirs = build(name), host["results"][name]
    model.load_state_dict(theirs["state"], strict=True)
    ours = run(model, CASES[name]["batch"])
    assert ours["drops"] == theirs["drops"]
    for mode in ("train", "eval"):
        assert len(ours[mode]) == len(theirs[mode])
        for depth, (mine, level) in enumerate(zip(ours[mode], theirs[mode])):
            close(mine, level, f"{mode} level {depth}")
    close(ours["state_after"], theirs["state_after"], "state")
    assert ours["grads"].keys() == theirs["grads"].keys()
    # Gradients that normalization makes zero are noise: compare with the largest of all, too.
    floor = 1e-4 * max(float(g.norm()) for g in theirs["grads"].values())
    for key, expected in theirs["grads"].items():
        error = float((ours["grads"][key] - expected).norm())
        assert error <= 1e-3 * float(expected.norm()) + floor, f"gradient of {key} off by {error}"
