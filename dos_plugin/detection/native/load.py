"""DetectionLoader: the weights of a detector, loaded completely or not at all."""

from __future__ import annotations

from typing import Any

from dos_plugin.detection.load import Inputs, load_pretrained
from dos_plugin.hooks.watch import bare_model
from dos_plugin.host import HOST
from dos_plugin.models.backbone import BRANCHES, Branch, load_strictly
from dos_plugin.models.inputs import datasets, feature_keys
from dos_plugin.runs.checkpoint import read_checkpoint

BACKBONE = "encoder.backbone."


class DetectionLoader(HOST.HookBase):  # type: ignore[name-defined, misc]
    """Before training loads ``cfg.weight``; takes the place of the host's ``CheckpointLoader``.

    The file may be a DOS pretraining, a segmentation run or an exported backbone, of which the
    backbone is taken, or a run of a detector of this kind, of which everything is. With
    ``cfg.resume`` it hands over to the host's own loader.

    Args:
        branch: Which network of a pretraining.
        added_channels: Input channels that the backbone has behind those of the pretraining.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file does not fit, see
            :func:`~dos_plugin.detection.load.load_pretrained`; or ``resume`` without a run.
    """

    def __init__(self, branch: Branch = "student", added_channels: int = 0) -> None:
        super().__init__()
        if branch not in BRANCHES:
            raise ValueError(f"branch must be one of {BRANCHES}, got {branch!r}")
        self.branch: Branch = branch
        self.added_channels = added_channels

    def before_train(self) -> None:
        cfg, log = self.trainer.cfg, self.trainer.logger.info
        weight: Any = None if cfg.weight in (None, "", "None") else cfg.weight
        if weight is None:
            if cfg.resume:
                raise ValueError("resume=True needs the run's checkpoint in weight, got none")
            log("weight is None: training starts from random weights")
            return
        model: Any = bare_model(self.trainer)
        checkpoint = read_checkpoint(weight)
        detector = any(key.startswith(BACKBONE) for key in checkpoint.state)
        if cfg.resume:
            if not detector or checkpoint.state.keys() != model.state_dict().keys():
                raise ValueError(
                    f"resume=True, but {weight} is not of a run of this config; to start from "
                    "it, set resume=False"
                )
            host_loader = HOST.HOOKS.build(dict(type="CheckpointLoader"))
            host_loader.trainer = self.trainer
            host_loader.before_train()
            return
        if detector:
            load_strictly(model, checkpoint.state, f"weight: {weight} (a run of a detector)")
            log(f"Loading weight at: {weight} (all {len(checkpoint.state)} entries)")
            return
        branch: Branch = "segmentor" if checkpoint.kind == "segmentation run" else self.branch
        if checkpoint.kind == "exported":
            branch = checkpoint.branches[0]
        (data, *_) = datasets(dict(data=cfg.data), ("train",))
        inputs = Inputs(model.grid.grid_size, feature_keys(data.config["transform"]))
        report = load_pretrained(
            model.encoder.backbone, weight, branch, self.added_channels, inputs=inputs
        )
        log(f"Loading weight at: {report}")
