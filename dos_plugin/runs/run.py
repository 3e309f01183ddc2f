"""A run on disk: its config, its checkpoint, its backbone.

A *run* is the folder that the host's trainer leaves: ``config.py`` and ``model/model_last.pth``.
A file of ``dos-plugin export`` stands for a run, too.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dos_plugin.messages import some
from dos_plugin.runs.checkpoint import (
    META,
    Branch,
    backbone_state,
    read_checkpoint,
)
from dos_plugin.runs.config import config_beside


@dataclass(frozen=True)
class Run:
    """A run on disk, or an exported file, which carries what matters of its run's config.

    Attributes:
        config: the run's config (the active host's Config).
        config_path: where it was read.
        checkpoint: model file, None if the run has none yet.
    """

    config: Any
    config_path: Path
    checkpoint: Path | None

    @property
    def folder(self) -> Path:
        """Folder of the config file: the run's own one unless the config came from elsewhere."""
        return self.config_path.parent

    @property
    def seed(self) -> int:
        """Seed of the run, 0 if its config has none."""
        return int(self.config.get("seed") or 0)


def active_host() -> Any:
    """What the seam offers of the active host, which is imported now and not before."""
    from dos_plugin.host import HOST

    return HOST


def open_run(path: str | Path, config: str | Path | None = None) -> Run:
    """Find config and checkpoint of a run.

    Args:
        path: the run's folder, a checkpoint (``<run>/model/*.pth``), a file of ``dos-plugin
            export``, or a config file, which means random weights only.
        config: config file, if it does not lie in the run's folder.

    Raises:
        FileNotFoundError: if the path or the run's config does not exist.
        ValueError: if a file is truncated or no checkpoint.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such run folder, checkpoint or config file")
    checkpoint: Path | None = None
    if path.suffix == ".py":
        found = path
    elif path.is_file():
        meta = read_checkpoint(path).get(META)
        if config is None and isinstance(meta, Mapping):
            return Run(active_host().Config(dict(meta["config"])), path, path)
        found, checkpoint = config_beside(path) or path.parent.parent / "config.py", path
    else:
        found, checkpoint = path / "config.py", path / "model" / "model_last.pth"
    found = Path(config) if config else found
    if not found.is_file():
        raise FileNotFoundError(
            f"{found}: no config there, expected the config.py that training writes into its "
            "folder, or another file given with --config"
        )
    if checkpoint is not None and not checkpoint.is_file():
        checkpoint = None
    return Run(active_host().Config.fromfile(str(found)), found, checkpoint)


def load_backbone(run: Run, branch: Branch = "student") -> nn.Module:
    """The run's backbone with its trained weights, frozen and in eval mode, on the GPU if any.

    Args:
        run: the run.
        branch: which of the networks in the checkpoint.

    Raises:
        FileNotFoundError: if the run has no checkpoint.
        ValueError: if the checkpoint does not fit the backbone of the config.
    """
    state = backbone_state(read_checkpoint(run.checkpoint), branch, run.checkpoint)
    backbone = build_backbone(run.config, branch)
    load_strictly(backbone, state, f"{run.checkpoint} ({branch}.backbone)")
    return frozen(_placed(backbone))


def random_backbone(run: Run) -> nn.Module:
    """The run's backbone with the random weights that the run started from.

    The whole model is built after seeding as the trainer does, so that the weights are drawn at
    the same place of the random stream; then the backbone is kept. An exported file knows its
    backbone alone, whose weights are drawn first.
    """
    with seeded(run.seed):
        if "type" not in run.config.model:
            return frozen(_placed(build_backbone(run.config)))
        model = active_host().build_model(
            {**run.config.model, "backbone": runnable(run.config.model["backbone"])}
        )
    names = ("student.backbone.", "backbone.")
    own = model.state_dict()
    prefix = next(name for name in names if any(key.startswith(name) for key in own))
    state = {key[len(prefix) :]: own[key] for key in own if key.startswith(prefix)}
    backbone = build_backbone(run.config)
    load_strictly(backbone, state, f"{run.config_path} (random weights)")
    return frozen(_placed(backbone))


def build_backbone(config: Any, branch: Branch = "student") -> nn.Module:
    """The backbone of a config, without drop path and shuffled orders.

    Raises:
        ValueError: if the config has no ``model.backbone``.
    """
    model = config.get("model") or {}
    if not isinstance(model.get("backbone"), Mapping):
        raise ValueError(
            "model.backbone: missing in the config, expected that of a DOS pretraining or of a "
            "segmentation run"
        )
    backbone = runnable(model["backbone"])
    if branch == "teacher":
        backbone.update(model.get("teacher_custom") or {})
    if "drop_path" in backbone or str(backbone["type"]).startswith("PT-v3"):
        backbone["drop_path"] = 0.0
    built = active_host().build_model(backbone)
    # PTv3 permutes its curves in eval mode too, at its input and (whatever its option says) at
    # every pooling: two passes would give two results.
    for module in built.modules():
        if isinstance(getattr(module, "shuffle_orders", None), bool):
            module.shuffle_orders = False
    return built


def runnable(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's config as this machine can run it: flash attention only where there is any.

    The weights do not depend on it, and the features only by rounding: flash is in half precision.
    """
    backbone = dict(backbone)
    flash = torch.cuda.is_available() and importlib.util.find_spec("flash_attn") is not None
    if str(backbone.get("type")).startswith("PT-v3") and not flash:
        backbone["enable_flash"] = False
    return backbone


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict and accept no difference.

    Raises:
        ValueError: naming missing, unexpected and differently shaped entries.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if state[key].shape != own[key].shape
    ]
    parts = (("missing", missing), ("unexpected", unexpected), ("other shape", shapes))
    faults = [f"{len(keys)} {what}: {some(keys)}" for what, keys in parts if keys]
    if faults:
        raise ValueError(f"{source}: does not fit {type(module).__name__}; {'; '.join(faults)}")
    module.load_state_dict(state)


def frozen(module: nn.Module) -> nn.Module:
    """The module in eval mode, without gradients."""
    return module.eval().requires_grad_(False)


class preserved_random:
    """Context that puts the generators of torch (CPU and GPUs), numpy and Python back as it ends.

    GPUs count only once CUDA is in use: asking before would start it, which a process that loads
    data must not.
    """

    def __enter__(self) -> None:
        self.state = torch.get_rng_state(), np.random.get_state(), random.getstate()
        self.devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self.state[0])
        np.random.set_state(self.state[1])
        random.setstate(self.state[2])
        if self.devices:
            torch.cuda.set_rng_state_all(self.devices)


class seeded(preserved_random):
    """Context with freshly seeded generators, which are put back as it ends."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        super().__enter__()
        # torch.manual_seed would also seed GPUs that are not in use yet, and that would stay.
        torch.default_generator.manual_seed(self.seed)
        if self.devices:
            torch.cuda.manual_seed_all(self.seed)
        np.random.seed(self.seed)
        random.seed(self.seed)


def _placed(module: nn.Module) -> nn.Module:
    """The module on the GPU if there is one."""
    return module.to("cuda" if torch.cuda.is_available() else "cpu")
