"""Every segmentation config: built in full, and trained for a few steps by the active host.

Run on the embedded host by default, and on Pointcept by
``DOS_HOST=pointcept python -m dos_plugin.cpu -m pytest tests/contract/test_semseg_configs.py``.
Weights come from a backbone of the same small size in a file such as pretraining leaves.
"""

import functools
import logging
import re
import sys
from pathlib import Path

import pytest
import torch

from dos_plugin.commands.split import write_split
from dos_plugin.hooks.load import fit_state
from dos_plugin.host import HOST
from dos_plugin.models.inputs import WIDTHS
from dos_plugin.runs.checkpoint import checkpoint_of
from dos_plugin.shipped import config_path, list_configs
from tests.contract.test_configs import SCENES, build_trainer, load
from tests.dataset_layouts import WRITERS
from tests.tiny_run import write_scans

NAMES = [config.name for config in list_configs() if config.name.startswith("semseg-")]
FEW = [name for name in NAMES if "pct" in name]
MODES = {"lin": True, "dec": "encoder", "ft": False}
# Configs of few labels differ in numbers alone: one of each data set is enough.
TRAINED = [name for name in NAMES if name not in FEW or "-1pct-" in name]


@pytest.fixture(scope="module")
def data_roots(tmp_path_factory):
    """Tiny data in the layout of each ``data_root``, and splits of them."""
    root = tmp_path_factory.mktemp("data")
    roots = {name: root / name for name in (*WRITERS, "data/dos-demo")}
    for name, write in WRITERS.items():
        write(roots[name])
        fraction = 1.0 if name == "data/scannet" else 0.5  # two scans are left
        roots[f"{name}/few/0.01-seed0"] = write_split(roots[name], fraction).out
    for split in ("train", "val"):
        write_scans(roots["data/dos-demo"], split, 2)
    return roots


@pytest.fixture(autouse=True)
def plain_text(monkeypatch):
    """Config texts without the formatter, which takes longer than all the rest."""
    module = sys.modules[HOST.Config.__module__]
    monkeypatch.setattr(module, "FormatCode", lambda text, **_: (text, True))


@functools.cache
def shipped(name: str):
    """A config as it is, to be read only."""
    return load(name)


def pretraining_of(config):
    """The config whose run the weight comes from."""
    name = Path(config.weight).parts[2]
    return shipped("pretrain-dos-v1m1-9-demo" if name == "demo" else name)


def small(config) -> dict:
    """Options that make the model narrow and shallow."""
    backbone = config.model.backbone
    if backbone.type == "SpUNet-v1m1":
        options, channels = dict(base_channels=8, channels=(8,) * 8, layers=(1,) * 8), 8
    else:
        stages = len(backbone.enc_depths)
        widths = (8, 16, 16, 24, 32)[:stages]
        options = dict(
            enc_depths=(1,) * stages,
            enc_channels=widths,
            enc_num_head=(1, 2, 2, 3, 4)[:stages],
            enc_patch_size=(32,) * stages,
            enable_flash=False,
        )
        channels = sum(widths)
        if not backbone.enc_mode:
            channels = 8
            options |= dict(
                dec_depths=(1,) * (stages - 1),
                dec_channels=(8, 8, 16, 16)[: stages - 1],
                dec_num_head=(1, 1, 2, 2)[: stages - 1],
                dec_patch_size=(32,) * (stages - 1),
            )
    options = {f"model.backbone.{key}": value for key, value in options.items()}
    return {**options, "model.backbone_out_channels": channels}


def write_weight(config, path: Path) -> dict:
    """A backbone as pretraining leaves it: without decoder, unless it is a SpUNet."""
    backbone = {**config.model.backbone}
    if "enc_mode" in backbone:
        backbone["enc_mode"] = True
    torch.manual_seed(5)
    state = HOST.build_model(backbone).state_dict()
    torch.save(dict(state_dict={f"student.backbone.{k}": v for k, v in state.items()}), path)
    return state


@pytest.mark.parametrize("name", TRAINED)
def test_a_few_steps_on_tiny_scenes(name, data_roots, tmp_path):
    config = shipped(name)
    options = {
        **small(config),
        "save_path": str(tmp_path),
        # two steps with what each of them has; where it is two scenes a step, they are mixed
        "batch_size": 1 if name in FEW or "scannet" in name or "demo" in name else 2,
        "num_worker": 1 if HOST.name != "minihost" else 0,
        "epoch": 1,
        "eval_epoch": 1,
        "enable_amp": False,  # sparse convolution on a CPU knows no bfloat16
        "weight": str(tmp_path / "pretrained.pth"),
    }
    for split in ("train", "val"):
        options[f"data.{split}.data_root"] = str(data_roots[config.data[split].data_root])
    pretrained = write_weight(load(name, options), tmp_path / "pretrained.pth")
    trainer = build_trainer(name, options)
    assert trainer.cfg.scheduler.total_steps == 2
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    said: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())
    trainer.logger.addHandler(listener)
    trainer.train()
    trainer.logger.removeHandler(listener)

    after = trainer.model.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert not torch.equal(before["seg_head.weight"], after["seg_head.weight"])
    assert len(pretrained) > 30
    kept = [torch.equal(after[f"backbone.{key}"], value) for key, value in pretrained.items()]
    frozen = MODES[name.split("-")[-1]]
    assert all(kept) if frozen else sum(kept) < len(kept) / 2
    if frozen == "encoder":
        decoder = [key for key in after if key.startswith("backbone.dec.")]
        moved = [not torch.equal(after[key], before[key]) for key in decoder]
        assert sum(moved) > len(moved) / 2
    batch = trainer.comm_info["input_dict"]
    assert batch["feat"].shape[1] == config.model.backbone.in_channels
    assert batch["segment"].max() < config.model.num_classes and batch["segment"].max() >= 0
    saved = torch.load(tmp_path / "model/model_best.pth", weights_only=False)
    assert set(saved["state_dict"]) == set(after)
    assert 0 <= saved["best_metric_value"] <= 1
    log = "\n".join(said)
    assert log.count("Val result: mIoU/mAcc/allAcc") == 1 and "Best mIoU" in log
    assert f"Loaded {len(pretrained)} (" in log and "they are not used: none" in log


def test_resume_of_a_fine_tuning(data_roots, tmp_path):
    """Two epochs at once, and the second of them once more, from the checkpoint of the first."""
    name = "semseg-dos-v1m1-9c-demo-ft"
    options = {
        **small(shipped(name)),
        "batch_size": 1,
        "num_worker": 1 if HOST.name != "minihost" else 0,
        "epoch": 2,
        "eval_epoch": 2,
        "hooks.7.save_freq": 1,
        "weight": str(tmp_path / "pretrained.pth"),
        "save_path": str(tmp_path / "first"),
    }
    for split in ("train", "val"):
        options[f"data.{split}.data_root"] = str(data_roots["data/dos-demo"])
    write_weight(load(name, options), tmp_path / "pretrained.pth")
    first = build_trainer(name, options)
    first.train()
    resumed = dict(
        resume=True,
        weight=str(tmp_path / "first/model/epoch_1.pth"),
        save_path=str(tmp_path / "second"),
    )
    (tmp_path / "second/model").mkdir(parents=True)
    second = build_trainer(name, {**options, **resumed})
    second.train()
    assert second.start_epoch == 1
    assert first.scheduler.last_epoch == second.scheduler.last_epoch == 4
    assert {int(state["step"]) for state in second.optimizer.state.values()} == {4}
    again = second.model.state_dict()
    same = [torch.equal(value, again[key]) for key, value in first.model.state_dict().items()]
    if HOST.name == "minihost":  # the real host replays the random numbers of the first epoch
        assert all(same)


def test_the_full_models_are_built_and_fit_the_pretraining(monkeypatch):
    """One of each kind; the student of its pretraining loads."""
    for init in ("trunc_normal_", "kaiming_uniform_", "uniform_"):  # any numbers will do
        monkeypatch.setattr(torch.nn.init, init, lambda tensor, *_, **__: tensor)

    def plain(backbone):
        return {**backbone, "enable_flash": False} if "enable_flash" in backbone else backbone

    seen = set()
    for name in NAMES:
        config = shipped(name)
        kind = (config.model.backbone.type, str(config.model.freeze_backbone), "demo" in name)
        if kind in seen:
            continue
        seen.add(kind)
        model = HOST.build_model({**config.model, "backbone": plain(config.model.backbone)})
        theirs = HOST.build_model(plain(pretraining_of(config).model.backbone)).state_dict()
        state = {f"student.backbone.{key}": value for key, value in theirs.items()}
        checkpoint = checkpoint_of(dict(state_dict=state), name)
        fit = fit_state(model.state_dict(keep_vars=True), checkpoint, "student")
        assert len(fit.weight) == len(state) > 30 and not fit.unexpected
    assert len(seen) == 8


@pytest.mark.parametrize("name", NAMES)
def test_written_and_read_again_a_config_is_the_same(name, tmp_path):
    config = load(name)
    path = tmp_path / "config.py"
    config.dump(str(path))
    again = HOST.Config.fromfile(str(path))
    assert again._cfg_dict.to_dict() == config._cfg_dict.to_dict()
    assert "_base_" not in path.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_voxels_features_and_backbone_are_those_of_the_pretraining(name):
    config = shipped(name)
    before = pretraining_of(config)
    ours, theirs = dict(config.model.backbone), dict(before.model.backbone)
    for key in ("drop_path", "enc_mode", "dec_depths", "dec_channels", "dec_num_head"):
        ours.pop(key, None), theirs.pop(key, None)
    ours.pop("dec_patch_size", None)
    assert ours == theirs

    def transforms(split):
        return {step["type"]: step for step in config.data[split].transform}

    collected = next(step for step in before.data.train.transform if step["type"] == "Collect")
    keys = [key.removeprefix("view1_") for key in collected["view1_feat_keys"]]
    views = next(step for step in before.data.train.transform if step["type"] == "TwoViews")
    grid = views["view_transform"][-2 if "demo" in name else -1]["grid_size"]
    for split in ("train", "val"):
        steps = transforms(split)
        assert list(steps["Collect"]["feat_keys"]) == keys
        assert steps["GridSample"]["grid_size"] == grid and steps["GridSample"]["return_grid_coord"]
        assert ("NormalizeColor" in steps) == ("color" in keys)
        assert "PointClip" not in steps
    test = config.data.test.test_cfg
    assert list(test.post_transform[-1]["feat_keys"]) == keys and test.voxelize.grid_size == grid
    assert config.model.backbone.in_channels == sum(WIDTHS[key] for key in keys)


@pytest.mark.parametrize("name", NAMES)
def test_mode_classes_and_hooks(name):
    config = shipped(name)
    frozen = MODES[name.split("-")[-1]]
    assert config.model.freeze_backbone == frozen
    assert config.model.num_classes == config.data.num_classes == len(config.data.names)
    backbone = config.model.backbone
    channels = backbone.get("enc_channels")
    if backbone.type == "SpUNet-v1m1":
        assert config.model.backbone_out_channels == backbone.channels[-1]
        assert backbone.num_classes == 0
    elif backbone.enc_mode:
        assert config.model.backbone_out_channels == sum(channels) and frozen is True
    else:
        assert config.model.backbone_out_channels == backbone.dec_channels[0]
    kinds = [hook["type"] for hook in config.hooks]
    assert kinds[:4] == ["ExactResume", "PretrainedLoader", "ModelHook", "NonFiniteGuard"]
    assert kinds.index("SemSegEvaluator") < kinds.index("CheckpointSaver")
    rates = config.scheduler.max_lr
    assert len(rates) == 1 + len(config.param_dicts)
    assert rates == [config.optimizer.lr] + [group["lr"] for group in config.param_dicts]
    weights = config.model.criteria[0].get("weight")
    assert weights is None or len(weights) == config.data.num_classes
    assert config.evaluate and not config.enable_wandb
    assert config.epoch % config.eval_epoch == 0
    comment = " ".join(config_path(name).read_text().split('"""')[1].split())
    assert name in comment and Path(config.save_path).name in (name, *("demo-" + m for m in MODES))


@pytest.mark.parametrize("name", sorted(FEW))
def test_lengths_with_few_labels(name):
    """The comment's numbers; the factors of BEVContrast (epochs 1000, 500, 100, 50; all: 30)."""
    config = shipped(name)
    fraction, seed = re.search(r"/few/([\d.]+)-seed(\d)", config.data.train.data_root).groups()
    percent = re.search(r"-(\w+)pct-", name)[1].replace("p", ".")
    assert float(fraction) == pytest.approx(float(percent) / 100) and seed == "0"
    dataset = re.search(r"2c-([a-z-]+)-", name)[1]
    scans = 1201 if dataset == "scannet" else SCENES[dataset]
    count = round(float(fraction) * scans)
    full = shipped(f"semseg-dos-v1m1-0c-{dataset}-ft")
    factor = {"0.001": 1000, "0.01": 500, "0.1": 100, "0.5": 50}[fraction] / 30
    assert config.epoch / full.epoch == pytest.approx(factor, rel=0.06)
    loops = config.epoch // config.eval_epoch
    samples = count * loops
    dropped = samples > config.batch_size
    steps = (samples // config.batch_size if dropped else 1) * config.eval_epoch
    comment = " ".join(config_path(name).read_text().split('"""')[1].split())
    assert f"Length: {steps:,} steps" in comment and f" {count:,} of {scans:,} " in comment
    assert f"--fraction {fraction} --seed 0" in comment
    same = ("model", "optimizer", "batch_size", "mix_prob", "weight")
    assert all(config[key] == full[key] for key in same)
    assert config.data.val == full.data.val
