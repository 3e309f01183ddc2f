"""The embedded host's backbones do what the real host's do: names, values, gradients, poolings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("spconv")
pytest.importorskip("torch_pointcloud")

from dos_plugin.minihost.backbones import BACKBONES  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
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
    cases["PT-v3m2-defaults"] = (
        dict(type="PT-v3m2", in_channels=4, enable_flash=False, enc_mode=True),
        make_batch((400, 800)),
    )
    cases["SpUNet-v1m1"] = (dict(UNET, type="SpUNet-v1m1", num_classes=0), batch)
    cases["SpUNet-v1m1-logits"] = (dict(UNET, type="SpUNet-v1m1", num_classes=5), batch)
    cases["SpUNet-v1m1-enc"] = (
        dict(UNET, type="SpUNet-v1m1", num_classes=0, enc_mode=True),
        batch,
    )
    return {name: dict(cfg=cfg, batch=batch) for name, (cfg, batch) in cases.items()}


CASES = make_cases()


@pytest.fixture(scope="module")
def host_results(tmp_path_factory):
    """What the real host's backbones gave for all cases, in one process of its own."""
    folder = tmp_path_factory.mktemp("host")
    torch.save(CASES, folder / "cases.pt")
    env = dict(os.environ, PYTHONPATH=str(HOST), OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "dos_plugin.cpu", SCRIPT, "cases.pt", "results.pt"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(folder / "results.pt")


@pytest.fixture(params=CASES)
def pair(request, host_results):
    """Our backbone with the host's weights, loaded strictly, its case and the host's results."""
    case, host = CASES[request.param], host_results[request.param]
    cfg = dict(case["cfg"])
    torch.manual_seed(3)
    model = BACKBONES[cfg.pop("type")](**cfg)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(host["state"], strict=True)
    return model, fresh, case, host


def close(ours, theirs, what):
    assert ours.keys() == theirs.keys(), what
    for key, expected in theirs.items():
        torch.testing.assert_close(
            ours[key], expected, rtol=1e-4, atol=1e-4, msg=lambda m, k=key: f"{what} {k}: {m}"
        )


def test_state_dict_has_the_hosts_keys_shapes_and_order(pair):
    model, fresh, _, host = pair
    assert list(fresh) == list(host["state"])
    assert {k: v.shape for k, v in fresh.items()} == {k: v.shape for k, v in host["state"].items()}
    assert [key for key, _ in model.named_parameters()] == host["order"]
    assert [k for k, p in model.named_parameters() if not p.requires_grad] == host["frozen"]


def test_fresh_weights_are_drawn_like_the_hosts(pair):
    _, fresh, _, host = pair
    for key, expected in host["state"].items():
        ours = fresh[key].double()
        torch.testing.assert_close(ours, expected.double(), msg=lambda m, k=key: f"{k}: {m}")


def test_values_gradients_and_buffers_are_the_hosts(pair):
    from host_backbones import run

    model, _, case, host = pair
    ours = run(model, case["batch"])
    assert ours["drops"] == host["drops"]
    for mode in ("train", "eval"):
        assert len(ours[mode]) == len(host[mode])
        for depth, (mine, theirs) in enumerate(zip(ours[mode], host[mode])):
            close(mine, theirs, f"{mode} level {depth}")
    close(ours["state_after"], host["state_after"], "state")
    assert ours["grads"].keys() == host["grads"].keys()
    # Gradients that normalization makes zero are noise: compare with the largest of all, too.
    floor = 1e-4 * max(float(g.norm()) for g in host["grads"].values())
    for key, expected in host["grads"].items():
        error = float((ours["grads"][key] - expected).norm())
        assert error <= 1e-3 * float(expected.norm()) + floor, f"gradient of {key} off by {error}"
