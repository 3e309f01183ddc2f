"""A pretraining run on disk: its config, its checkpoint, its backbone.

A *run* is the folder that the host's trainer leaves: ``config.py`` and ``model/model_last.pth``.
"""

from __future__ import annotations

import pickle
import random
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

Branch = Literal["student", "teacher"]

# What torch.load raises for files that are truncated or something else altogether.
LOAD_ERRORS = (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, ValueError)


@dataclass(frozen=True)
class Run:
    """A pretraining run on disk.

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
    """What the seam offers of the active host, with everything of the plugin registered."""
    import dos_plugin.register  # noqa: F401
    from dos_plugin.host import HOST

    return HOST


def open_run(path: str | Path, config: str | Path | None = None) -> Run:
    """Find config and checkpoint of a run.

    Args:
        path: the run's folder, a checkpoint (``<run>/model/*.pth``), or a config file, which means
            random weights only.
        config: config file, if it does not lie in the run's folder.

    Raises:
        FileNotFoundError: if the path or the run's config does not exist.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such run folder, checkpoint or config file")
    if path.suffix == ".py":
        found, checkpoint = path, None
    elif path.is_file():
        found, checkpoint = path.parent.parent / "config.py", path
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


def read_state(checkpoint: str | Path | None) -> dict[str, Tensor]:
    """The ``state_dict`` of a host checkpoint, without DDP's ``module.`` prefix.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated or is no checkpoint of the host.
    """
    state = read_checkpoint(checkpoint)["state_dict"]
    return {key.removeprefix("module."): value for key, value in state.items()}


def read_epoch(checkpoint: str | Path) -> int:
    """Finished epochs of a checkpoint; errors as :func:`read_state`."""
    return int(read_checkpoint(checkpoint).get("epoch") or 0)


def read_checkpoint(checkpoint: str | Path | None) -> Mapping[str, Any]:
    """Everything in a host checkpoint, on the CPU; errors as :func:`read_state`."""
    if checkpoint is None or not Path(checkpoint).is_file():
        raise FileNotFoundError(
            f"{checkpoint or 'model/model_last.pth'}: no checkpoint there, has the run finished "
            "its first epoch?"
        )
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=False)
    except LOAD_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{checkpoint}: truncated or not a torch file ({reason})") from error
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise ValueError(
            f"{checkpoint}: holds no 'state_dict', expected a checkpoint of the host's trainer"
        )
    return content


def load_backbone(run: Run, branch: Branch = "student") -> nn.Module:
    """The run's backbone with its trained weights, frozen and in eval mode.

    Args:
        run: the run.
        branch: which of the two networks.

    Raises:
        FileNotFoundError: if the run has no checkpoint.
        ValueError: if the checkpoint does not fit the backbone of the config.
    """
    state = branch_state(read_state(run.checkpoint), branch, run.checkpoint)
    backbone = build_backbone(run.config, branch)
    load_strictly(backbone, state, f"{run.checkpoint} ({branch}.backbone)")
    return frozen(backbone)


def random_backbone(run: Run) -> nn.Module:
    """The run's backbone with the random weights that the run started from.

    The whole model is built after seeding as the trainer does, so that the weights are drawn at
    the same place of the random stream; then the student's backbone is kept.
    """
    with seeded(run.seed):
        model = active_host().build_model(run.config.model)
    state = branch_state(model.state_dict(), "student", run.config_path)
    del model
    backbone = build_backbone(run.config, "student")
    load_strictly(backbone, state, f"{run.config_path} (random weights)")
    return frozen(backbone)


def build_backbone(config: Any, branch: Branch = "student") -> nn.Module:
    """The backbone of a pretraining config, without drop path and shuffled orders.

    Raises:
        ValueError: if the config has no ``model.backbone``.
    """
    model = config.get("model") or {}
    if not isinstance(model.get("backbone"), Mapping):
        raise ValueError("model.backbone: missing in the config, expected a DOS pretraining config")
    backbone = dict(model["backbone"])
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


def branch_state(
    state: Mapping[str, Tensor], branch: str, source: Any, part: str = "backbone"
) -> dict[str, Tensor]:
    """The entries below ``<branch>.<part>.``, or a ValueError that lists what there is."""
    prefix = f"{branch}.{part}."
    found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    if not found:
        seen = sorted({".".join(key.split(".")[:2]) for key in state})
        raise ValueError(f"{source}: holds no '{prefix}*', its keys start with {_some(seen)}")
    return found


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
    faults = [f"{len(keys)} {what}: {_some(keys)}" for what, keys in parts if keys]
    if faults:
        raise ValueError(f"{source}: does not fit {type(module).__name__}; {'; '.join(faults)}")
    module.load_state_dict(state)


def frozen(module: nn.Module) -> nn.Module:
    """The module in eval mode, without gradients."""
    return module.eval().requires_grad_(False)


class seeded:
    """Context with freshly seeded torch and numpy generators, which are restored on leaving."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.state = torch.get_rng_state(), np.random.get_state(), random.getstate()
        torch.manual_seed(self.seed)
        np.random.seed(self.seed)
        random.seed(self.seed)

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self.state[0])
        np.random.set_state(self.state[1])
        random.setstate(self.state[2])


def _some(keys: Sequence[str], limit: int = 5) -> str:
    """The first keys, and how many more there are."""
    rest = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + rest
