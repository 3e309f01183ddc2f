"""A run on disk: its config, its checkpoint, its backbone.

A *run* is the folder that the host's trainer leaves: ``config.py`` and ``model/model_last.pth``.
A file of ``dos-plugin export`` stands for a run, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dos_plugin.host import active_host
from dos_plugin.messages import one_line
from dos_plugin.models.backbone import (
    Branch,
    build_backbone,
    frozen,
    keep_orders,
    load_strictly,
    runnable,
)
from dos_plugin.runs.checkpoint import Checkpoint, read_checkpoint
from dos_plugin.runs.config import config_beside
from dos_plugin.runs.hub import is_hub_folder
from dos_plugin.seeding import seeded

# What a training leaves in its folder; the report comes from the command of that name.
OF_A_TRAINING = (
    *("config.py", "train.log", "model", "events.out.tfevents.*"),
    *("probe.json", "features", "features.gif"),
)
OF_A_RUN = (*OF_A_TRAINING, "report")


@dataclass
class Run:
    """A run on disk, or an exported file, which carries what matters of its run's config.

    Attributes:
        config: the run's config (the active host's Config).
        config_path: where it was read.
        checkpoint: model file, None if the run has none yet.
        content: what is in that file, once it was read.
    """

    config: Any
    config_path: Path
    checkpoint: Path | None
    content: Checkpoint | None = field(default=None, repr=False)

    @property
    def folder(self) -> Path:
        """Folder of the config file: the run's own one unless the config came from elsewhere."""
        return self.config_path.parent

    @property
    def seed(self) -> int:
        """Seed of the run, 0 if its config has none."""
        return int(self.config.get("seed") or 0)

    @property
    def trained(self) -> Checkpoint:
        """What is in the checkpoint; errors as :func:`read_checkpoint`."""
        if self.content is None:
            self.content = read_checkpoint(self.checkpoint)
        return self.content


def open_run(path: str | Path, config: str | Path | None = None) -> Run:
    """Find config and checkpoint of a run.

    Args:
        path: the run's folder, a checkpoint (``<run>/model/*.pth``), a file or folder of
            ``dos-plugin export``, or a config file, which means random weights only.
        config: config file, if it does not lie in the run's folder.

    Raises:
        FileNotFoundError: if the path or the run's config does not exist.
        ValueError: if a file is truncated or no checkpoint, or a module that the config names in
            ``custom_imports`` cannot be imported.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such run folder, checkpoint or config file")
    checkpoint: Path | None = None
    content: Checkpoint | None = None
    if path.suffix == ".py":
        found = path
    elif path.is_file() or is_hub_folder(path):
        content = read_checkpoint(path)
        if config is None and content.exported:
            values = active_host().Config(dict(content.exported["config"]))
            return Run(values, path, path, content)
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
    try:
        values = active_host().Config.fromfile(str(found))
    except ImportError as error:  # Pointcept's says nothing, its cause does
        raise ValueError(
            f"{found}: a module of custom_imports cannot be imported "
            f"({one_line(error.__cause__ or error)}); PYTHONPATH=. adds the working folder"
        ) from error
    return Run(values, found, checkpoint, content)


def load_backbone(
    run: Run, branch: Branch = "student", device: str | torch.device | None = None
) -> nn.Module:
    """The run's backbone with its trained weights, frozen and in eval mode.

    Args:
        run: the run.
        branch: which of the networks in the checkpoint.
        device: where it is put; None is the GPU if there is one.

    Raises:
        FileNotFoundError: if the run has no checkpoint.
        ValueError: if the checkpoint does not fit the backbone of the config.
    """
    state = run.trained.backbone(branch)
    backbone = build_backbone(run.config, branch, device)
    load_strictly(backbone, state, f"{run.checkpoint} ({branch}.backbone)")
    return frozen(_placed(backbone, device))


def random_backbone(run: Run) -> nn.Module:
    """The run's backbone with the random weights that the run started from.

    The whole model is built after seeding as the trainer does, so that the weights are drawn at
    the same place of the random stream. An exported file knows its backbone alone, whose weights
    are drawn first.
    """
    config = run.config.model
    with seeded(run.seed):
        if "type" not in config:
            return frozen(_placed(build_backbone(run.config)))
        model = active_host().build_model({**config, "backbone": runnable(config["backbone"])})
    branch = model.student if hasattr(model, "student") else model
    backbone = branch["backbone"] if isinstance(branch, nn.ModuleDict) else branch.backbone
    return frozen(_placed(keep_orders(backbone)))


def _placed(module: nn.Module, device: str | torch.device | None = None) -> nn.Module:
    """The module on a device, the GPU if there is one."""
    return module.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
