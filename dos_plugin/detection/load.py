"""Weights of a pretraining into a detector's backbone: all of them, or an error."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from dos_plugin.messages import some
from dos_plugin.models.backbone import STEMS, Branch
from dos_plugin.models.inputs import WIDTHS, datasets, feature_keys, grid_size
from dos_plugin.runs.checkpoint import Checkpoint, read_checkpoint
from dos_plugin.runs.config import config_beside, read_literals


class Inputs(NamedTuple):
    """What a backbone is fed with.

    Attributes:
        grid_size: edge of a voxel, metres.
        features: names in the order of their columns, such as coord and strength.
    """

    grid_size: float
    features: tuple[str, ...]


@dataclass(frozen=True)
class LoadReport:
    """What became of the entries of a checkpoint; names are the backbone's.

    Attributes:
        source: the file and the network in it.
        matched: entries that were loaded.
        missing: entries of the backbone that were allowed to keep their random weights.
        unexpected: entries of the checkpoint that the backbone has no use for.
        inflated: the stem that was given channels of zeros, or none.
        trained_on: the inputs of the pretraining; none if no config lies beside the file and it is
            no exported one, which says so itself.
    """

    source: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    inflated: str | None
    trained_on: Inputs | None = None

    def __str__(self) -> str:
        stem = f", {self.inflated} has new input channels of zeros" if self.inflated else ""
        return (
            f"{self.source}: {len(self.matched)} entries loaded, {len(self.missing)} of the "
            f"backbone keep random weights, {len(self.unexpected)} not used{stem}; trained on "
            + (
                f"{', '.join(self.trained_on.features)} in voxels of {self.trained_on.grid_size} m"
                if self.trained_on
                else "features and voxels that are not known: no config.py of its run beside it"
            )
        )


def load_pretrained(
    backbone: nn.Module,
    file: str | Path,
    branch: Branch = "student",
    added_channels: int = 0,
    missing_ok: Sequence[str] = (),
    inputs: Inputs | None = None,
) -> LoadReport:
    """Load the backbone of a checkpoint.

    Args:
        backbone: PT-v3m1, PT-v3m2 or SpUNet-v1m1 of a host.
        file: a DOS pretraining, a segmentation run, or a file of ``dos-plugin export``.
        branch: whose backbone.
        added_channels: input channels that the backbone has behind those of the pretraining, such
            as 1 for the time of a sweep. Their weights are 0: nothing but the rounding of the
            product changes until they are trained.
        missing_ok: beginnings of names that may be missing, such as ``dec.``.
        inputs: what the detector feeds the backbone with, compared with the pretraining's where
            they are known. Other voxels are a warning: the weights may still be of use.

    Returns:
        What was loaded.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no checkpoint, does not hold the branch, or fits in part only. Too
            much may be a part that the backbone has nothing of, such as a decoder, and the mask
            token. Also for other features than those of the pretraining.
    """
    checkpoint = read_checkpoint(file)
    found = checkpoint.backbone(branch)
    trained_on = trained_inputs(checkpoint)
    if inputs and trained_on:
        _compare(inputs, trained_on, str(file), added_channels)
    source = f"{file} ({branch})"
    own = backbone.state_dict()
    stem = next((name for name in STEMS if name in own), None)
    inflated = None
    if added_channels and stem in found:
        there, wanted = found[stem].shape[-1], own[stem].shape[-1]
        if there + added_channels != wanted:
            raise ValueError(
                f"added_channels={added_channels}: the backbone has in_channels={wanted}, the "
                f"pretraining in {file} {there}; expected in_channels={there + added_channels}"
            )
        found[stem] = F.pad(found[stem], (0, added_channels))
        inflated = stem

    missing = [name for name in own if name not in found]
    unexpected = [name for name in found if name not in own]
    parts = {name.split(".")[0] for name in own}
    faults = {
        "missing": [name for name in missing if not name.startswith(tuple(missing_ok))],
        "not in the backbone": [
            name
            for name in unexpected
            if name.split(".")[0] in parts and not name.endswith("mask_token")
        ],
        "of another shape": [
            f"{name} {tuple(found[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in found and found[name].shape != own[name].shape
        ],
    }
    matched = tuple(name for name in own if name in found)
    wrong = [f"{len(names)} {what} ({some(names)})" for what, names in faults.items() if names]
    if wrong or not matched:
        hint = "; added_channels asks for channels behind those of the pretraining"
        hint = "" if added_channels else hint
        raise ValueError(
            f"{source} does not fit {type(backbone).__name__}: {len(matched)} of {len(own)} "
            f"entries match, {', '.join(wrong) or 'nothing else is there'}. Type, widths, depths "
            f"and in_channels of the backbone must be those of the checkpoint's config{hint}"
        )
    # Not load_state_dict: once MMDetection3D is imported, that of spconv's layers takes a state
    # dict without a version for one of spconv 1 and turns its kernels around.
    with torch.no_grad():
        for name in matched:
            own[name].copy_(found[name])
    return LoadReport(source, matched, tuple(missing), tuple(unexpected), inflated, trained_on)


def trained_inputs(checkpoint: Checkpoint) -> Inputs | None:
    """What a checkpoint's backbone was fed with: from an exported file, or the config beside it."""
    exported = checkpoint.exported
    if exported:
        return Inputs(float(exported["grid_size"]), tuple(exported["feat_keys"]))
    beside = config_beside(checkpoint.path)
    if beside is None:
        return None
    try:
        transform = next(datasets(read_literals(beside), ("train",))).config["transform"]
        return Inputs(grid_size(transform), feature_keys(transform))
    except (KeyError, StopIteration, ValueError):  # a config.py of something else
        return None


def _compare(inputs: Inputs, trained_on: Inputs, file: str, added_channels: int) -> None:
    count = len(trained_on.features)
    first, rest = tuple(inputs.features[:count]), inputs.features[count:]
    added = sum(WIDTHS.get(name, 1) for name in rest)
    if first != trained_on.features or added != added_channels:
        raise ValueError(
            f"features: the detector has {', '.join(inputs.features)}, the pretraining in {file} "
            f"{', '.join(trained_on.features)}; expected these first and then as many columns as "
            f"added_channels={added_channels}"
        )
    if abs(inputs.grid_size - trained_on.grid_size) > 1e-6:
        warnings.warn(
            f"grid_size: the detector has voxels of {inputs.grid_size} m, the pretraining in "
            f"{file} had {trained_on.grid_size} m: its features were learned at another scale",
            stacklevel=3,
        )
