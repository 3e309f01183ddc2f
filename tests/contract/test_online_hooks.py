"""OnlineProbe and FeaturePicture in trainings of both hosts: what they write, and no other trace.

Run on the embedded host by default, and on Pointcept by
``DOS_HOST=pointcept python -m dos_plugin.cpu -m pytest tests/contract/test_online_hooks.py``.
"""

import hashlib
import importlib
import json
import logging
import random
import re
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from dos_plugin.host import HOST, active_host
from dos_plugin.runs.run import open_run
from dos_plugin.runs.scalars import read_events
from tests.tiny_run import write_config, write_scans

EPOCHS = 3
PROBE = dict(type="OnlineProbe", every=1, train_scans=2, val_scans=1, steps=20, save_best=True)
PICTURE = dict(type="FeaturePicture", every=1)
active_host()  # registers the plugin


class Witness(HOST.HookBase):
    """Notes at each moment everything that decides how a training goes on."""

    seen: list

    def note(self, event):
        model = self.trainer.model
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        Witness.seen.append(
            dict(
                event=event,
                torch=digest(torch.get_rng_state()),
                numpy=digest(np.random.get_state()[1], np.random.get_state()[2]),
                python=digest(random.getstate()),
                modes=digest([module.training for module in model.modules()]),
                weights=digest(*model.state_dict().values()),
                gradients=digest(*gradients),
                batch=digest(self.trainer.comm_info.get("input_dict", {}).get("view1_coord")),
                loss=digest(self.trainer.comm_info.get("model_output_dict", {}).get("loss")),
            )
        )


for moment in ("before_train", "before_epoch", "before_step", "after_step", "after_epoch"):
    setattr(Witness, moment, lambda self, moment=moment: self.note(moment))


class Careless(HOST.HookBase):
    """What the two hooks must not be."""

    def after_epoch(self):
        self.trainer.model.eval()
        torch.rand(1), np.random.rand(), random.random()


class Lines(logging.Handler):
    """Keeps what the host logs."""

    kept: ClassVar[list[str]] = []

    def emit(self, record):
        self.kept.append(record.getMessage())


for hook in (Witness, Careless):
    if hook.__name__ not in HOST.HOOKS.module_dict:
        HOST.HOOKS.register_module(hook.__name__)(hook)


def digest(*values):
    """A number that differs where any byte of the values does."""
    parts = [v.detach().numpy() if isinstance(v, torch.Tensor) else v for v in values]
    content = [p.tobytes() if isinstance(p, np.ndarray) else repr(p).encode() for p in parts]
    return hashlib.sha256(b"|".join(content)).hexdigest()


def train(config: Path, folder: Path, *hooks: dict, resume: Path | None = None) -> list[dict]:
    """Train with more hooks at the end of the list; what the witness saw."""
    text = config.read_text().replace('dict(type="CheckpointSaver")', "*MORE")
    more = [dict(type="CheckpointSaver", save_freq=1), *hooks, dict(type="Witness")]
    changed = config.with_name("changed.py")
    changed.write_text(f"{text.replace('*MORE', ', '.join(map(repr, more)))}")
    options = {"save_path": str(folder)}
    if resume:
        options |= {"resume": True, "weight": str(resume)}
    Witness.seen, Lines.kept = [], []
    if HOST.name == "minihost":
        from dos_plugin.minihost.launch import main

        words = [f"{key}={value}" for key, value in {**options, "num_worker": 0}.items()]
        main(["--config-file", str(changed), "--options", *words])
    else:
        defaults = importlib.import_module(f"{HOST.name}.engines.defaults")
        trainers = importlib.import_module(f"{HOST.name}.engines.train").TRAINERS
        cfg = defaults.default_setup(defaults.default_config_parser(str(changed), options))
        trainers.build(dict(type=cfg.train.type, cfg=cfg)).train()
    return Witness.seen


@pytest.fixture(scope="module", autouse=True)
def lines_of_the_host():
    """The host's logger hands its lines to nobody else."""
    logger = logging.getLogger("dos_plugin.minihost" if HOST.name == "minihost" else HOST.name)
    handler = Lines()
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("online")
    for split, count in (("train", 4), ("val", 2)):
        write_scans(root / "data", split, count)
    path = write_config(root / "base", root / "data")
    text = path.read_text()
    for old, new in (
        ("epoch = 1\neval_epoch = 1", f"epoch = {EPOCHS}\neval_epoch = {EPOCHS}"),
        ("lr=0.0, weight_decay=0.0", "lr=0.01, weight_decay=0.04"),
        ("max_lr=0.0", "max_lr=0.01"),
    ):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def plain(config):
    """A training without the hooks."""
    folder = config.parent.parent / "plain"
    return folder, train(config, folder)


@pytest.fixture(scope="module")
def watched(config):
    """The same training with the hooks."""
    folder = config.parent.parent / "watched"
    seen = train(config, folder, PROBE, PICTURE)
    return folder, seen, list(Lines.kept)


def test_training_is_bitwise_the_same(plain, watched):
    assert len(plain[1]) == 1 + EPOCHS * (2 + 2 * 2)
    assert len({entry["weights"] for entry in plain[1]}) == 1 + EPOCHS * 2  # it does train
    assert watched[1] == plain[1]
    last = [torch.load(f / "model/model_last.pth")["state_dict"] for f in (plain[0], watched[0])]
    assert all(torch.equal(value, last[1][key]) for key, value in last[0].items())


def test_the_comparison_sees_a_careless_hook(config, plain, tmp_path):
    seen = train(config, tmp_path, dict(type="Careless"))
    first = next(i for i, (a, b) in enumerate(zip(seen, plain[1])) if a != b)
    assert seen[first]["event"] == "after_epoch"
    differing = {key for key, value in plain[1][first].items() if seen[first][key] != value}
    assert differing == {"torch", "numpy", "python", "modes"}


def test_resumed_training_is_bitwise_the_same(config, plain, watched, tmp_path):
    without = train(config, tmp_path / "plain", resume=plain[0] / "model/epoch_1.pth")
    shutil.copytree(watched[0], tmp_path / "watched")
    (tmp_path / "watched/features/epoch_0002.png").unlink()
    before = json.loads((watched[0] / "probe.json").read_text())
    first = tmp_path / "watched/model/epoch_1.pth"
    resumed = train(config, tmp_path / "watched", PROBE, PICTURE, resume=first)
    assert resumed == without
    # Epochs 0 and 1 are those of the first time, the others are done again.
    history = json.loads((tmp_path / "watched/probe.json").read_text())
    assert [entry["epoch"] for entry in history] == [0, 1, 2, 3]
    assert history[:2] == before[:2]
    if HOST.name == "minihost":  # where a resumed run is the run
        assert history == before
    with Image.open(tmp_path / "watched/features.gif") as animation:
        assert animation.n_frames == EPOCHS + 1


def test_probe_values(watched):
    history = json.loads((watched[0] / "probe.json").read_text())
    assert [entry["epoch"] for entry in history] == [0, 1, 2, 3]
    for entry in history:
        for kind in ("linear", "knn"):
            assert 0 < entry[kind]["miou"] <= 100
            assert set(entry[kind]["iou"]) == {"class 0", "class 1", "class 2"}
    curves = read_events(watched[0])[0]
    for kind in ("linear", "knn"):
        np.testing.assert_array_equal(curves[f"probe/{kind}_mIoU"].step, [0, 1, 2, 3])
        expected = [entry[kind]["miou"] for entry in history]
        np.testing.assert_allclose(curves[f"probe/{kind}_mIoU"].value, expected, rtol=1e-6)


def test_probe_of_an_epoch_is_that_of_its_checkpoint(watched):
    from dos_plugin.hooks.online_probe import OnlineProbe
    from dos_plugin.probing.compare import feature_function, probe_features
    from dos_plugin.probing.scans import ScanSource

    history = json.loads((watched[0] / "probe.json").read_text())
    hook = OnlineProbe(**{key: value for key, value in PROBE.items() if key != "type"})
    config = watched[0] / "config.py"
    for file, epoch in ((config, 0), (watched[0] / "model/epoch_2.pth", 2)):
        run = open_run(file, config)
        features = feature_function(run, "student" if epoch else "random")
        scans = [list(ScanSource(run, None, *args)) for args in (("train", 2), ("val", 1))]
        result = probe_features(features, *scans, settings=hook.settings)
        if epoch or HOST.name == "minihost":  # Pointcept seeds what draws the weights otherwise
            assert result["miou"] == pytest.approx(history[epoch]["linear"]["miou"])
            assert result["knn"]["miou"] == pytest.approx(history[epoch]["knn"]["miou"])


def test_best_checkpoint_is_that_of_the_best_probe(watched):
    history = json.loads((watched[0] / "probe.json").read_text())
    best = max(history[1:], key=lambda entry: entry["linear"]["miou"])
    saved = torch.load(watched[0] / "model/model_best.pth")
    assert saved["epoch"] == best["epoch"]


def test_log_says_what_the_probe_found(watched):
    lines = watched[2]
    assert sum("Probe of epoch 0, before training: linear mIoU " in line for line in lines) == 1
    line = next(line for line in lines if "Probe of epoch 3: " in line)
    history = json.loads((watched[0] / "probe.json").read_text())
    now, then = history[3]["linear"]["miou"], history[0]["linear"]["miou"]
    assert f"linear mIoU {now:.1f} (epoch 0: {then:.1f}, {now - then:+.1f})" in line
    assert any("Features of 4 epochs as colours" in line for line in lines)


def test_pictures(watched):
    names = sorted(path.name for path in (watched[0] / "features").glob("*.png"))
    assert names == [f"epoch_{epoch:04d}.png" for epoch in range(EPOCHS + 1)]
    images = [np.asarray(Image.open(watched[0] / "features" / name)) for name in names]
    assert len({image.shape for image in images}) == 1
    assert all((image[48:] > 60).any(axis=2).mean() > 0.02 for image in images)  # points are there
    assert not np.array_equal(images[0][48:], images[3][48:])
    with Image.open(watched[0] / "features.gif") as animation:
        assert animation.n_frames == len(names)


def test_scans_without_labels_end_the_run_before_it_starts(config, tmp_path):
    for split in ("train", "val"):
        write_scans(tmp_path / "bare", split, 2, labels=False)
    with pytest.raises((SystemExit, ValueError)) as caught:
        train(config, tmp_path / "run", {**PROBE, "data_root": str(tmp_path / "bare")})
    assert Witness.seen == []
    assert not (tmp_path / "run/probe.json").exists()
    text = "\n".join([str(caught.value), *Lines.kept])
    assert re.search("OnlineProbe: .* have no labels.*data_root, train_split and val_split", text)
