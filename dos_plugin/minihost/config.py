"""Config files: loading, checks, and writing ``config.py`` of a run."""

import argparse
import os

import numpy as np
import torch
from mmengine.config import Config, DictAction

from dos_plugin.seeding import set_seed

from .distributed import get_rank, get_world_size

# Every key that the real host reads without a default. Asking for all of them, used here or not,
# keeps a config that runs on the embedded host valid on the real one.
REQUIRED_KEYS = (
    "weight resume evaluate seed save_path num_worker batch_size gradient_accumulation_steps "
    "batch_size_val batch_size_test epoch eval_epoch clip_grad sync_bn enable_amp amp_dtype "
    "empty_cache empty_cache_per_epoch find_unused_parameters enable_wandb mix_prob param_dicts "
    "model optimizer scheduler data hooks train"
).split()


class OptionsAction(DictAction):
    """Parses ``key=value``: number, true/false, None, list ``a,b`` or ``[a,b]``, tuple ``(a,b)``.

    Two things are kinder than on the real host: ``None`` is None and not a string, and a second
    ``--options`` adds to the first.
    """

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        for pair in values:
            if "=" not in pair or pair.startswith("="):
                parser.error(f"--options takes key=value pairs, got {pair!r}")
        super().__call__(parser, namespace, values, option_string)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the real host's training script."""
    parser.add_argument("--config-file", required=True, metavar="FILE", help="path of a config")
    parser.add_argument(
        "--num-gpus", type=int, default=1, help="processes on this machine (CPU ones without CUDA)"
    )
    parser.add_argument(
        "--options", nargs="+", action=OptionsAction, help="key=value pairs that change the config"
    )


def load_config(path: str, options: dict | None = None) -> Config:
    """Read a config file, apply options, check it, and fill in ``seed`` and ``data.train.loop``.

    ``custom_imports`` of the file run while it is read, before the options are applied.

    Args:
        path: A ``.py`` config; if there is no such file, its first "-" stands for a folder.
        options: Dotted keys and values; a number in a key indexes a list (``hooks.0.keywords``).

    Raises:
        FileNotFoundError: If there is no such config.
        KeyError: If the config lacks required keys; all of them are named.
        ValueError: If an option does not fit the config, or a value is out of range.
        ImportError: If a module of ``custom_imports`` cannot be imported.
    """
    if not os.path.isfile(path):
        folder, dash, rest = path.partition("-")
        if not (dash and os.path.isfile(os.path.join(folder, rest))):
            raise FileNotFoundError(f"--config-file: there is no file {path!r}")
        path = os.path.join(folder, rest)
    cfg = Config.fromfile(path, lazy_import=False)
    for key, value in (options or {}).items():
        try:
            cfg.merge_from_dict({key: value})
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"option {key}={value!r} does not fit {path}: {error.args[0]}"
            ) from error
    missing = [key for key in REQUIRED_KEYS if key not in cfg]
    if missing:
        raise KeyError(f"{path} lacks the keys {', '.join(missing)}")
    _check(cfg)
    if cfg.seed is None:
        cfg.seed = int(np.random.SeedSequence().generate_state(1)[0])
    cfg.data.train.loop = cfg.epoch // cfg.eval_epoch
    return cfg


def _check(cfg: Config) -> None:
    for key in ("batch_size", "gradient_accumulation_steps", "epoch", "eval_epoch"):
        if not (isinstance(cfg[key], int) and cfg[key] >= 1):
            raise ValueError(f"{key} must be an integer of at least 1, got {cfg[key]!r}")
    if cfg.epoch % cfg.eval_epoch:
        raise ValueError(
            f"epoch ({cfg.epoch}) must be a multiple of eval_epoch ({cfg.eval_epoch}): set both"
        )
    if not (cfg.seed is None or (isinstance(cfg.seed, int) and cfg.seed >= 0)):
        raise ValueError(f"seed must be None or an integer of at least 0, got {cfg.seed!r}")
    if not (cfg.num_worker is None or (isinstance(cfg.num_worker, int) and cfg.num_worker >= 0)):
        raise ValueError(
            f"num_worker must be None or an integer of at least 0, got {cfg.num_worker!r}"
        )
    if cfg.amp_dtype not in ("float16", "bfloat16"):
        raise ValueError(f"amp_dtype must be 'float16' or 'bfloat16', got {cfg.amp_dtype!r}")
    if not (isinstance(cfg.mix_prob, (int, float)) and 0 <= cfg.mix_prob <= 1):
        raise ValueError(f"mix_prob must be a number from 0 to 1, got {cfg.mix_prob!r}")
    if not isinstance(cfg.save_path, str) or not cfg.save_path:
        raise ValueError(f"save_path must be the path of a folder, got {cfg.save_path!r}")
    if cfg.weight and not os.path.isfile(cfg.weight):
        raise FileNotFoundError(f"weight: there is no checkpoint file {cfg.weight!r}")
    if cfg.resume and not cfg.weight:
        raise ValueError(f"resume=True needs the run's checkpoint in weight, got {cfg.weight!r}")
    for key in ("model", "optimizer", "scheduler", "train"):
        if not isinstance(cfg[key], dict) or "type" not in cfg[key]:
            raise ValueError(f"{key} must be a dict with a type, got {cfg[key]!r}")
    if not isinstance(cfg.data.get("train"), dict):
        raise KeyError("the config lacks data.train")


def setup_config(cfg: Config) -> Config:
    """Fill in what depends on the process group, and seed this process for building the model.

    Sets ``num_worker_per_gpu`` and ``batch_size(_val|_test)_per_gpu``.

    Raises:
        ValueError: If a batch size is no multiple of the number of processes.
    """
    world_size = get_world_size()
    if cfg.num_worker is None:
        cfg.num_worker = os.cpu_count() or 1
    cfg.num_worker_per_gpu = cfg.num_worker // world_size
    for key in ("batch_size", "batch_size_val", "batch_size_test"):
        total = cfg[key]
        if total is not None and total % world_size:
            raise ValueError(
                f"{key} ({total}) must be a multiple of the number of processes ({world_size})"
            )
        cfg[f"{key}_per_gpu"] = 1 if total is None else total // world_size
    set_seed(cfg.seed + get_rank() * cfg.num_worker_per_gpu)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return cfg


def config_text(cfg: Config) -> str:
    """The config as Python text that gives the same values when it is read again.

    Raises:
        ValueError: If a value cannot be written as a literal (a function, an array, inf); its
            top-level key is named.
    """
    text = _text_that_reads_back(cfg)
    if text is not None:
        return text
    parts = {key: Config({key: value}) for key, value in cfg.items()}
    bad = [key for key, part in parts.items() if _text_that_reads_back(part) is None]
    raise ValueError(
        f"the config cannot be written to config.py because of {', '.join(bad) or 'its values'}: "
        "use numbers, strings, booleans, None, lists, tuples and dicts only"
    )


def _text_that_reads_back(cfg: Config) -> str | None:
    values: dict = {}
    try:
        text = cfg.pretty_text  # takes a second or two
        exec(text, {}, values)
    except Exception:
        return None
    return text if values == cfg.to_dict() else None
