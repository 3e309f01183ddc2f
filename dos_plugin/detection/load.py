"""Weights of a pretraining into a detector's backbone: all of them, or an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from dos_plugin.messages import some
from dos_plugin.models.backbone import STEMS, Branch
from dos_plugin.runs.checkpoint import read_checkpoint


@dataclass(frozen=True)
class LoadReport:
    """What became of the entries of a checkpoint; names are the backbone's.

    Attributes:
        source: the file and the network in it.
        matched: entries that were loaded.
        missing: entries of the backbone that were allowed to keep their random weights.
        unexpected: entries of the checkpoint that the backbone has no use for.
        inflated: the stem that was given channels of zeros, or none.
    """

    source: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    inflated: str | None

    def __str__(self) -> str:
        stem = f", {self.inflated} has new input channels of zeros" if self.inflated else ""
        return (
            f"{self.source}: {len(self.matched)} entries loaded, {len(self.missing)} of the "
            f"backbone keep random weights, {len(self.unexpected)} not used{stem}"
        )


def load_pretrained(
    backbone: nn.Module,
    file: str | Path,
    branch: Branch = "student",
    added_channels: int = 0,
    missing_ok: Sequence[str] = (),
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

    Returns:
        What was loaded.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no checkpoint, does not hold the branch, or fits in part only. Too
            much may be a part that the backbone has nothing of, such as a decoder, and the mask
            token.
    """
    found = read_checkpoint(file).backbone(branch)
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
    return LoadReport(source, matched, tuple(missing), tuple(unexpected), inflated)
