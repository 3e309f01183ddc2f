"""Every shipped config is loaded, built and trained for a few steps by the active host.

Run on the embedded host by default, and on Pointcept by
``DOS_HOST=pointcept python -m dos_plugin.cpu -m pytest tests/contract/test_configs.py``. Widths,
depths and views are cut down by options, as on the command line; the data are a few tiny scenes in
the layout of each data set.
"""

import ast
import importlib
import math
import re
from pathlib import Path

import pytest
import torch

from dos_plugin.host import HOST
from dos_plugin.models.inputs import WIDTHS
from dos_plugin.shipped import _bases, config_path, configs_dir, list_configs
from tests.dataset_layouts import WRITERS
from tests.tiny_run import write_scans

NAMES = [config.name for config in list_configs()]
PRETRAINING = [name for name in NAMES if name.startswith("pretrain-")]
DATASETS = [name for name in PRETRAINING if not name.endswith("-demo")]

# rows of the ablation, and what each changes
ALPHAS = (0.0, 0.7, 1.0, 1.3, 1.6, 2.0, 3.0)
CLUSTERING = {"model.target": "clustering", "model.sinkhorn.alpha": 0.0}
TOKENS = {"model.student_input": "mask_token", "model.backbone.mask_token": True}
ROWS = {
    "component-0-mask-token": CLUSTERING | TOKENS,
    "component-1-jitter": CLUSTERING | TOKENS | {"model.mask_jitter": 0.1},
    "component-2-observable": CLUSTERING,
    "component-3-regression": {"model.target": "regression"},
    "component-4-softmap": {"model.sinkhorn.alpha": 0.0},
    "component-5-zipf": {"model.sinkhorn.alpha": 1.3},
    **{f"zipf-alpha-{a}".replace(".", "p"): {"model.sinkhorn.alpha": a} for a in ALPHAS},
}
COMPONENTS = [f"ablation/{name}" for name in ROWS if name.startswith("component")]

# training scenes of the data sets
SCENES = {
    "nuscenes": 28130,
    "semantic-kitti": 19130,
    "waymo": 23691,
    "scannet": 1201 + 312,
    "outdoor": 28130 + 19130 + 23691,
}


@pytest.fixture(scope="module")
def data_roots(tmp_path_factory):
    """Where the data of each ``data_root`` are."""
    root = tmp_path_factory.mktemp("data")
    roots = {name: root / name for name in (*WRITERS, "data/dos-demo")}
    for name, write in WRITERS.items():
        write(roots[name])
    write_scans(roots["data/dos-demo"], "train", 4)
    return roots


def load(name: str, options: dict | None = None):
    """The config as the host's training command has it, without touching the disk."""
    config = HOST.Config.fromfile(str(config_path(name)))
    config.merge_from_dict(options or {})
    return config


def train_sets(config) -> dict[str, dict]:
    """The data sets of a config, by the option that leads to them."""
    train = config.data.train
    if train.type != "ConcatDataset":
        return {"data.train": train}
    return {f"data.train.datasets.{i}": part for i, part in enumerate(train.datasets)}


def needs_backbone(name: str) -> None:
    """Skip what builds a backbone that the host of this process has not."""
    kind = load(name).model.backbone.type
    if kind not in HOST.MODELS.module_dict:
        pytest.skip(f"{name}: the host {HOST.name!r} has no {kind}")


def small_backbone(config) -> dict:
    """Options that make the model narrow and shallow."""
    backbone = config.model.backbone
    if backbone.type == "SpUNet-v1m1":
        options = dict(base_channels=8, channels=(8,) * 8, layers=(1,) * 8)
        channels = 8
    else:
        stages = len(backbone.enc_depths)
        widths = (8, 16, 16, 24, 32)[:stages]
        if backbone.type in ("PT-v3m3", "LitePT-v1"):  # six channels a head, or a multiple
            widths = (6, 12, 12, 18, 24)[:stages]
        options = dict(
            enc_depths=(1, 1, 1, 2, 1)[:stages],
            enc_channels=widths,
            enc_num_head=(1, 2, 2, 3, 4)[:stages],
            enc_patch_size=(32,) * stages,
        )
        if "enable_flash" in backbone:
            options["enable_flash"] = False
        if not backbone.enc_mode:  # a level of the host has one patch size, down and up
            options["dec_patch_size"] = (32,) * (stages - 1)
        level = config.model.up_cast_level
        channels = sum(widths[-1 - level :]) if backbone.enc_mode else backbone.dec_channels[0]
    model = {
        "backbone_out_channels": channels,
        "head.hidden_channels": 16,
        "head.out_channels": 8,
        "num_prototypes": 32,
    }
    options = {f"backbone.{key}": value for key, value in options.items()}
    return {f"model.{key}": value for key, value in {**options, **model}.items()}


def small_data(config, data_roots) -> dict:
    options = {}
    for key, part in train_sets(config).items():
        options[f"{key}.data_root"] = str(data_roots[part.data_root])
        kinds = [transform["type"] for transform in part.transform]
        options[f"{key}.transform.{kinds.index('TwoViews')}.max_size"] = 700
    return options


def small_run(config, save_path) -> dict:
    accumulate = min(2, config.gradient_accumulation_steps)
    return dict(
        save_path=str(save_path),
        batch_size=2 // accumulate,
        gradient_accumulation_steps=accumulate,
        num_worker=1 if HOST.name != "minihost" else 0,
        epoch=1,
        eval_epoch=1,
        enable_amp=False,  # sparse convolution on a CPU knows no bfloat16
    )


def build_trainer(name: str, options: dict):
    """The host's own trainer, made as the host's training command makes it."""
    if HOST.name == "minihost":
        from dos_plugin.minihost import Trainer, load_config, setup_config

        return Trainer(setup_config(load_config(str(config_path(name)), options)))
    defaults = importlib.import_module(f"{HOST.name}.engines.defaults")
    train = importlib.import_module(f"{HOST.name}.engines.train")
    config = defaults.default_setup(defaults.default_config_parser(str(config_path(name)), options))
    return train.TRAINERS.build(dict(type=config.train.type, cfg=config))


@pytest.mark.parametrize("name", [*PRETRAINING, *COMPONENTS])
def test_a_few_steps_on_tiny_scenes(name, data_roots, tmp_path):
    needs_backbone(name)
    config = load(name)
    options = {
        **small_backbone(config),
        **small_data(config, data_roots),
        **small_run(config, tmp_path),
    }
    trainer = build_trainer(name, options)
    steps = trainer.cfg.scheduler.total_steps
    assert steps >= 2
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.train()

    output = trainer.comm_info["model_output_dict"]
    assert all(math.isfinite(value.item()) for value in output.values())
    assert output["loss"].item() > 0
    after = trainer.model.state_dict()
    for key in {"student.prototypes.weight", "student.head.mlp.0.weight"} & set(before):
        assert not torch.equal(before[key], after[key]), key
    assert all(torch.isfinite(value).all() for value in after.values())
    assert trainer.model.step == trainer.scheduler.last_epoch == steps

    batch = trainer.comm_info["input_dict"]
    assert batch["view1_feat"].shape[1] == config.model.backbone.in_channels
    for view in ("view1", "view2"):
        assert set(batch) >= {f"{view}_{key}" for key in ("coord", "grid_coord", "offset")}
        assert 0 < batch[f"{view}_visible"].float().mean() < 1
    assert ("student.prototypes.weight" in before) == ("regression" not in name)
    saved = torch.load(tmp_path / "model/model_last.pth", weights_only=False)
    assert saved["epoch"] == 1 and set(saved["state_dict"]) == set(after)


@pytest.mark.parametrize("name", PRETRAINING)
def test_written_and_read_again_a_config_is_the_same(name, tmp_path):
    config = load(name)
    path = tmp_path / "config.py"
    config.dump(str(path))
    again = HOST.Config.fromfile(str(path))
    assert again._cfg_dict.to_dict() == config._cfg_dict.to_dict()
    assert "_base_" not in path.read_text()


def kind_of_optimizer(name: str) -> tuple:
    config = load(name)
    return config.model.backbone.type, str(config.param_dicts), config.optimizer.lr


ONE_OF_EACH = list({kind_of_optimizer(name): name for name in PRETRAINING}.values())


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_optimizer_groups(name):
    """At full depth each block has its group and rate, and the teacher is in none."""
    needs_backbone(name)
    config = load(name)
    narrow = small_backbone(config)
    narrow.pop("model.backbone.enc_depths", None)
    config.merge_from_dict(narrow)
    config.scheduler.total_steps = 100
    if HOST.name == "minihost":
        from dos_plugin.minihost.optim import build_optimizer, build_scheduler
    else:
        tools = importlib.import_module(f"{HOST.name}.utils.optimizer")
        build_optimizer = tools.build_optimizer
        build_scheduler = importlib.import_module(f"{HOST.name}.utils.scheduler").build_scheduler
    model = HOST.build_model(config.model)
    optimizer = build_optimizer(config.optimizer, model, config.param_dicts)
    groups = optimizer.param_groups
    rates = [group["lr"] for group in groups]
    names = {id(value): key for key, value in model.state_dict(keep_vars=True).items()}
    members = [{names[id(p)] for p in group["params"] if p.requires_grad} for group in groups]

    trained = {key for key in names.values() if key.startswith("student.")}
    trained &= {names[id(p)] for p in model.parameters()}
    assert set().union(*members) == trained and sum(map(len, members)) == len(trained)
    if config.param_dicts is not None:  # else the host hands over frozen ones, too
        assert sum(len(group["params"]) for group in groups) == len(trained)

    if config.param_dicts:
        depths = config.model.backbone.enc_depths
        blocks = [f"enc{e}.block{b}." for e in range(len(depths)) for b in range(depths[e])]
        assert len(groups) == 1 + len(blocks)
        for number, block in enumerate(blocks, 1):
            assert members[number] == {key for key in trained if block in key} != set()
            depth = len(blocks) - number
            assert rates[number] == pytest.approx(rates[0] * config.lr_decay**depth)
    scheduler = build_scheduler(config.scheduler, optimizer)
    peaks = [group["max_lr"] for group in groups]
    assert peaks == pytest.approx(rates)
    assert scheduler.get_last_lr() == pytest.approx([rate / 10 for rate in rates])


@pytest.mark.parametrize("name", DATASETS)
def test_settings_of_the_paper(name):
    config = load(name)
    model = config.model
    indoor = "scannet" in name
    for part in train_sets(config).values():
        steps = {transform["type"]: transform for transform in part.transform}
        assert [step["type"] for step in part.transform[:3]] == [
            "PointId",
            "GridSample",
            "TwoViews",
        ]
        assert steps["BlockMask"]["block_size"] == (0.4 if indoor else 1.0)
        assert steps["BlockMask"]["mask_ratio"] == 0.7
        grid = 0.02 if indoor else 0.05
        last = steps["TwoViews"]["view_transform"][-1]
        assert last["type"] == "GridSample" and last["return_grid_coord"]
        sizes = (steps["GridSample"]["grid_size"], last["grid_size"])
        assert {*sizes, steps["Update"]["keys_dict"]["grid_size"]} == {grid}
        columns = ["coord", "color", "normal"] if indoor else ["coord", "strength"]
        if "nocolor" in name:
            columns.remove("color")
        for view in ("view1", "view2"):
            keys = list(steps["Collect"][f"{view}_feat_keys"])
            assert keys == [f"{view}_{column}" for column in columns]
    assert model.backbone.in_channels == sum(WIDTHS[column] for column in columns)
    if model.backbone.type != "SpUNet-v1m1":
        # two poolings up from the coarsest level: features at four times the input grid
        assert model.up_cast_level == 2 and tuple(model.backbone.stride) == (2, 2, 2, 2)
        assert model.backbone_out_channels == sum(model.backbone.enc_channels[2:])
        assert model.backbone.drop_path > model.teacher_custom.drop_path == 0
        assert not model.backbone.get("mask_token")
        assert model.backbone.get("enable_flash", model.backbone.type == "LitePT-v1")
    assert model.num_prototypes == 1024 and model.head.out_channels == 256
    assert dict(model.sinkhorn) == dict(type="ZipfSinkhorn", alpha=1.3, num_iters=3, scope="batch")
    temperatures = (model.student_temp, model.teacher_temp_start, model.teacher_temp_base)
    assert temperatures == (0.1, 0.04, 0.07)
    assert (model.momentum_base, model.momentum_final) == (0.994, 1.0)
    decay = next(hook for hook in config.hooks if hook["type"] == "StepWeightDecay")
    assert (decay["base_value"], decay["final_value"]) == (config.optimizer.weight_decay, 0.2)
    assert config.optimizer.weight_decay == 0.04 and config.clip_grad == 3.0
    assert config.enable_amp and config.amp_dtype == "bfloat16"
    assert not (config.evaluate or config.enable_wandb or config.mix_prob)


@pytest.mark.parametrize("name", DATASETS)
def test_the_comment_at_the_top_says_what_the_config_does(name):
    """Batch and number of steps; the host's own arithmetic on the size of the data set."""
    config = load(name)
    comment = " ".join(config_path(name).read_text().split('"""')[1].split())
    described = next(c for c in list_configs() if c.name == name)
    loop, rest = divmod(config.epoch, config.eval_epoch)
    batches = SCENES[described.dataset] * loop // config.batch_size
    steps = batches * config.eval_epoch // config.gradient_accumulation_steps
    assert rest == 0 and f"{steps:,} steps" in comment
    scenes = config.batch_size * config.gradient_accumulation_steps
    assert f"Batch: {scenes} scenes a step" in comment and scenes == 24
    gpus = 1 if name.endswith("-1gpu") else 2
    assert config.batch_size % gpus == 0 and config.num_worker >= gpus
    assert f"-g {gpus} -d dos -c {name} " in comment and "Memory: about" in comment
    assert Path(config.save_path).name == name


@pytest.mark.parametrize("name", PRETRAINING)
def test_the_comment_at_the_top_names_what_takes_the_checkpoint(name):
    """Segmentation configs with this backbone and its channels; else the config that names them,
    or where it is said how one gets it."""
    comment = config_path(name).read_text().split('"""')[1]
    named = set(re.findall(r"semseg-dos-v1m1-[a-z0-9-]+", comment))
    if name.endswith("-1gpu"):
        (base,) = _bases(ast.parse(config_path(name).read_text()))
        assert f"Probe and fine-tune: see {base}." in comment and not named
        return
    ours = load(name).model.backbone
    elsewhere = ours.type in ("PT-v3m1", "PT-v3m3", "LitePT-v1")
    assert (len(named) >= 2) != elsewhere and named <= set(NAMES)
    assert elsewhere == ("Fine-tune: no segmentation config here has" in comment)
    for other in named:
        theirs = load(other).model.backbone
        for key in ("type", "in_channels", "enc_channels", "enc_depths", "channels", "layers"):
            assert theirs.get(key) == ours.get(key), (other, key)


def inheritance(path: Path) -> int:
    """How many files deep a config builds on others."""
    bases = _bases(ast.parse(path.read_text()))
    return max((1 + inheritance((path.parent / base).resolve()) for base in bases), default=0)


def test_a_config_can_be_followed():
    """A base of a base of a base, and no further."""
    assert max(map(inheritance, configs_dir().glob("*.py"))) == 3


def test_bases_stay_inside():
    """Configs inherit from each other alone, so they run wherever the folder is copied to."""
    folder = configs_dir()
    bases = sorted(path.name for path in (folder / "_base_").glob("*.py"))
    assert "runtime.py" in bases and not set(NAMES) & {Path(base).stem for base in bases}
    for path in folder.rglob("*.py"):
        for base in _bases(ast.parse(path.read_text())):
            assert folder in (path.parent / base).resolve().parents, path


def test_rows_of_the_ablation():
    """A row is what all share but for its option; and that is the demo as it was, smaller."""
    folder = configs_dir() / "ablation"
    assert {path.stem for path in folder.glob("[!_]*.py")} == set(ROWS)

    def values(path, options=None) -> dict:
        config = HOST.Config.fromfile(str(path))
        config.merge_from_dict(options or {})
        return config._cfg_dict.to_dict()

    for name, options in ROWS.items():
        assert values(folder / f"{name}.py") == values(folder / "_base_.py", options), name
    shared, demo = values(folder / "_base_.py"), values(config_path("pretrain-dos-v1m1-9-demo"))
    assert shared["data"]["train"]["transform"][2].pop("max_size") == 1500
    assert demo["data"]["train"]["transform"][2].pop("max_size") == 4000
    scales = [
        v["data"]["train"]["transform"][2]["view_transform"][1].pop("scale") for v in (shared, demo)
    ]
    assert scales == [[0.95, 1.05], [0.8, 1.2]]
    assert (shared["model"].pop("up_cast_level"), demo["model"].pop("up_cast_level")) == (2, 3)
    assert demo["model"].pop("backbone_out_channels") - 32 == shared["model"].pop(
        "backbone_out_channels"
    )
    for key in ("model", "optimizer", "scheduler", "data"):
        assert shared[key] == demo[key], key
