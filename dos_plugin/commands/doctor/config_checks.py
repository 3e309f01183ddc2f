"""Rows about a config: can this host, with this data, on this machine, train it?"""

import difflib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

from dos_plugin.commands.doctor.rows import Row
from dos_plugin.commands.doctor.sample import pretrains, sample_rows
from dos_plugin.commands.doctor.step import step_rows
from dos_plugin.host import EMBEDDED, HOST
from dos_plugin.models.backbone import SERIALIZED
from dos_plugin.models.inputs import datasets
from dos_plugin.models.labels import LOOKED_AT, check_data, ignored_label
from dos_plugin.register import COMPONENTS

REGISTER = 'custom_imports = dict(imports=["dos_plugin.register"], allow_failed_imports=False)'
DEMO_DATA = "data/dos-demo"
SPLITS = ("train", "val", "test")


def config_rows(cfg: Any, num_gpus: int, devices: int) -> Iterator[Row]:
    """Everything about a config that can be known before training.

    Args:
        cfg: Config with the options of the command line.
        num_gpus: Processes it shall run on.
        devices: CUDA devices of this machine.
    """
    samples: list[dict] = []
    decisive = [*_names(cfg), *_traps(cfg, num_gpus), *_flash(cfg, devices > 0)]
    decisive += sample_rows(cfg, samples)
    yield from _registration(cfg)
    yield from decisive
    yield from _devices(num_gpus, devices)
    yield from _batch(cfg, num_gpus)
    yield from _schedule(cfg)
    yield from _weight(cfg)
    yield from _data(cfg)
    yield from _labels(cfg)
    if not any(row.status == "missing" for row in decisive):  # else it is known to fail
        yield from step_rows(cfg, samples, num_gpus)


def _registration(cfg: Any) -> Iterator[Row]:
    imports = cfg.get("custom_imports") or {}
    names = imports.get("imports") or []
    names = [names] if isinstance(names, str) else list(names)
    ours = {name for classes in COMPONENTS.values() for name in classes}
    if not any(name in ours for _, name in _types(cfg)):
        yield Row("ok", "custom_imports", "not needed: the config names nothing of DOS")
    elif "dos_plugin.register" not in names:
        text = "lacks dos_plugin.register: the host will know none of the names of DOS"
        yield Row("missing", "custom_imports", text, f"add to the config file: {REGISTER}")
    elif imports.get("allow_failed_imports"):
        text = "allow_failed_imports=True turns a failed registration into a mere warning"
        yield Row("warn", "custom_imports", text, f"write: {REGISTER}")
    else:
        yield Row("ok", "custom_imports", "registers DOS")


def _names(cfg: Any) -> Iterator[Row]:
    """Every ``type`` that the host will look up."""
    unknown = []
    for registry_name, type_name in _types(cfg):
        known = getattr(HOST, registry_name).module_dict
        if isinstance(type_name, str) and type_name not in known:
            near = difflib.get_close_matches(type_name, known, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            unknown.append(f"{type_name!r} in {registry_name}{hint}")
    if not unknown:
        yield Row("ok", "names", "the host knows all models, data sets, transforms and hooks")
        return
    mend = "correct the name, or name the module that registers it in custom_imports"
    if HOST.name == EMBEDDED:
        mend += "\nor run it in Pointcept, which has more (docs/backbones.md)"
    if HOST.name == EMBEDDED and not any("did you mean" in text for text in unknown):
        mend = "train with Pointcept: the embedded host has only what pretraining needs"
    text = f"host {HOST.name!r} lacks {', '.join(dict.fromkeys(unknown))}"
    yield Row("missing", "names", text, mend)


def _types(cfg: Any) -> Iterator[tuple[str, Any]]:
    """Registry and type of each module the config names."""
    model = cfg.get("model") or {}
    yield "MODELS", model.get("type")
    if model.get("backbone"):
        yield "MODELS", model["backbone"].get("type")
    for hook in cfg.get("hooks") or []:
        yield "HOOKS", hook.get("type")
    for dataset in (found.config for found in datasets(cfg, SPLITS)):
        yield "DATASETS", dataset.get("type")
        yield from (("TRANSFORMS", name) for name in _transform_types(dataset.get("transform")))


def _transform_types(transforms: Any) -> Iterator[Any]:
    for transform in transforms or []:
        yield transform.get("type")
        for value in transform.values():
            if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
                yield from _transform_types(value)


def _devices(num_gpus: int, devices: int) -> Iterator[Row]:
    if num_gpus > max(1, devices) and (devices or HOST.name != EMBEDDED):
        text = f"{num_gpus} asked for, {devices} CUDA devices here"
        yield Row("missing", "GPUs", text, f"--num-gpus {max(1, devices)}")


def _batch(cfg: Any, num_gpus: int) -> Iterator[Row]:
    wrong = [
        f"{key}={cfg[key]}"
        for key in ("batch_size", "batch_size_val", "batch_size_test")
        if cfg.get(key) and cfg[key] % num_gpus
    ]
    on = f"{num_gpus} GPU{'s' if num_gpus > 1 else ''}"
    if wrong:
        near = max(1, round(cfg.batch_size / num_gpus)) * num_gpus
        mend = f"--options batch_size={near} (all GPUs together), or another --num-gpus"
        yield Row("missing", "batch", f"{', '.join(wrong)} cannot be divided by {on}", mend)
    else:
        yield Row("ok", "batch", f"{cfg.batch_size} scenes on {on}")
    workers = cfg.get("num_worker")
    if workers is not None and workers < num_gpus:
        mend = f"--options num_worker={num_gpus * 8} (all GPUs together)"
        yield Row("warn", "num_worker", f"{workers} on {on}: some load in the main process", mend)


def _schedule(cfg: Any) -> Iterator[Row]:
    epoch, eval_epoch = cfg.get("epoch", 100), cfg.get("eval_epoch", 100)
    if not eval_epoch or epoch % eval_epoch:
        yield Row(
            "missing",
            "epochs",
            f"epoch={epoch} is no multiple of eval_epoch={eval_epoch}",
            f"--options epoch={epoch} eval_epoch={epoch}",
        )
    rates = (cfg.get("scheduler") or {}).get("max_lr")
    groups = 1 + len(cfg.get("param_dicts") or [])
    if isinstance(rates, (list, tuple)) and len(rates) != groups:
        yield Row(
            "missing",
            "learning rates",
            f"scheduler.max_lr has {len(rates)} entries for {groups} parameter groups",
            "give one for the other parameters and one for each entry of param_dicts, in order",
        )


def _traps(cfg: Any, num_gpus: int) -> Iterator[Row]:
    """Settings that train, but not as meant."""
    pretraining = pretrains(cfg)
    if cfg.get("enable_wandb") and importlib.util.find_spec("wandb") is None:
        yield Row("missing", "wandb", "enable_wandb=True, not installed", "set enable_wandb=False")
    if pretraining and cfg.get("mix_prob"):
        text = f"mix_prob={cfg.mix_prob}: the host cannot mix scenes of two views"
        yield Row("missing", "mix_prob", text, "--options mix_prob=0")
    if pretraining and cfg.get("evaluate"):
        text = "evaluate=True, but pretraining has no labels"
        yield Row("missing", "evaluate", text, "--options evaluate=False")
    if pretraining and not any(h.get("type") == "ModelHook" for h in cfg.get("hooks") or []):
        text = "ModelHook is missing: the teacher would never follow the student"
        yield Row("missing", "hooks", text, 'add dict(type="ModelHook") to hooks')
    if cfg.get("find_unused_parameters") and num_gpus > 1:
        text = "True costs time in every step; DOS uses all parameters of its student"
        yield Row("warn", "find_unused_par.", text, "--options find_unused_parameters=False")
    backbone = (cfg.get("model") or {}).get("backbone") or {}
    if pretraining and str(backbone.get("type", "")).startswith("SpUNet"):
        if backbone.get("num_classes", 0):
            text = f"num_classes={backbone['num_classes']}: SpUNet would give logits, not features"
            yield Row("missing", "backbone", text, "set num_classes=0 in the backbone")
        if backbone.get("enc_mode"):
            text = "enc_mode=True: SpUNet would give one vector a scene"
            yield Row("missing", "backbone", text, "remove enc_mode from the backbone")


def _flash(cfg: Any, cuda: bool) -> Iterator[Row]:
    backbone = (cfg.get("model") or {}).get("backbone") or {}
    kind = str(backbone.get("type", ""))
    if not kind.startswith(SERIALIZED):
        return
    always = kind.startswith("LitePT")
    asked = f"{kind} knows no other" if always else "asked for (enable_flash, True by default)"
    off = "--options model.backbone.enable_flash=False"
    off += " (slower, and patches of 1024 points need much memory: lower enc_patch_size)"
    install = "pip install flash-attn --no-build-isolation"
    if not always and not backbone.get("enable_flash", True):
        yield Row("ok", "flash attention", "not asked for")
    elif cuda and importlib.util.find_spec("flash_attn") is not None:
        yield Row("ok", "flash attention", "asked for and installed")
    elif cuda or HOST.name == EMBEDDED:
        cures = [install] * cuda + [off] * (not always)
        text = f"{asked}, but flash-attn is not installed"
        yield Row("missing", "flash attention", text, "\nor ".join(cures) or "use a GPU")
    else:
        yield Row("ok", "flash attention", "asked for; the CPU runner computes it otherwise")


def _weight(cfg: Any) -> Iterator[Row]:
    weight = cfg.get("weight")
    if weight and not os.path.isfile(weight):
        text = f"{weight}: no such file; Pointcept would start from random weights without a word"
        yield Row("missing", "weight", text, "--options weight=<run>/model/model_last.pth")
    elif weight:
        yield Row("ok", "weight", str(weight))
    elif cfg.get("resume"):
        text = "resume=True without weight starts from the beginning"
        yield Row("missing", "weight", text, "--options weight=<run>/model/model_last.pth")


def _data(cfg: Any) -> Iterator[Row]:
    """Existence and length of each data set; a split that is not read now is only a warning."""
    for number, (split, _, dataset) in enumerate(datasets(cfg, SPLITS)):
        needed = split == "train" or (split == "val" and cfg.get("evaluate"))
        status = "missing" if needed else "warn"
        item = f"data.{split}"
        many = len(cfg.data[split].get("datasets") or [])
        key = f"data.{split}.datasets.{number}" if many else item
        root = dataset.get("data_root")
        if root is not None and not os.path.isdir(root):
            yield Row(
                status,  # type: ignore[arg-type]
                item,
                f"{root}: no such folder (working directory {os.getcwd()})",
                f"dos-plugin scenes {root}"
                if root == DEMO_DATA
                else f"link the data there, or --options {key}.data_root=FOLDER",
            )
            continue
        if dataset.get("type") not in HOST.DATASETS.module_dict:
            continue  # a row of its own says so
        plain = {**dataset, "transform": [], "loop": 1, "test_mode": False}
        plain.pop("test_cfg", None)
        try:
            count = len(HOST.DATASETS.build(plain))
        except Exception as error:
            text = f"{root}: {type(error).__name__}: {error}"
            yield Row(status, item, text, "prepare it as the host's README says")  # type: ignore[arg-type]
            continue
        found = f"{root}, split {dataset.get('split')}: {count} samples"
        if count:
            yield Row("ok", item, found)
        else:
            yield Row(status, item, found, f"check {key}.data_root and .split")  # type: ignore[arg-type]


def _labels(cfg: Any) -> Iterator[Row]:
    """Labels of some scans against the classes of a model that has any."""
    model = cfg.get("model") or {}
    classes = model.get("num_classes")
    if not classes or not model.get("criteria"):
        return
    try:
        check_data(cfg, classes, ignored_label(model["criteria"]))
    except ValueError as error:
        yield Row("missing", "labels", str(error), "correct the labels, or the config")
    except Exception:
        return  # a data set that cannot be read has a row of its own
    else:
        text = f"of up to {LOOKED_AT} scans a data set are classes of {classes}, or ignored"
        yield Row("ok", "labels", text)
