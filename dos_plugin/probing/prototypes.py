"""How a trained model uses its prototypes, against the Zipf prior it was trained with.

Letters: R rows (points at the resolution of the loss), K prototypes, D channels of the projection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dos_plugin.method import ProjectionHead, ZipfSinkhorn
from dos_plugin.method.health import (
    assigned_mass,
    effective_number,
    kl_divergence,
    own_mass,
)
from dos_plugin.method.logits import Logits
from dos_plugin.method.settings import TEACHER_TEMP, UP_CAST_LEVEL
from dos_plugin.models.backbone import frozen, load_strictly
from dos_plugin.probing.scans import Scan, extract
from dos_plugin.runs.run import Run, load_backbone


@dataclass
class Projector:
    """The teacher of a run, up to the prototypes.

    Attributes:
        backbone: frozen backbone.
        head: frozen projection head.
        prototypes: (K, D), unit length.
        sinkhorn: the run's target regulariser.
        temp: teacher temperature after the warm-up.
        up_cast_level: pooling steps undone before the head.
    """

    backbone: nn.Module
    head: nn.Module
    prototypes: Tensor
    sinkhorn: ZipfSinkhorn
    temp: float
    up_cast_level: int

    def project(self, scan: Scan) -> Tensor:
        """(N, D) unit vectors of the voxels of a scan."""
        with torch.no_grad():
            feat = extract(self.backbone, scan, self.up_cast_level)
            return self.head(feat.to(self.prototypes.device)).cpu()


@dataclass(frozen=True)
class Usage:
    """Use of prototypes over some scans.

    Attributes:
        prior: (K,) Zipf prior w.
        own: (K,) mass without regularisation: mean over points of softmax(cos / temp).
        assigned: (K,) mass after Zipf-Sinkhorn, before the last scaling of the columns.
        feat_std: (D,) standard deviation of every projected channel.
        scaling_bias: (K,) log scaling of the columns; adding it to cos / temp gives the assignment.
    """

    prior: Tensor
    own: Tensor
    assigned: Tensor
    feat_std: Tensor
    scaling_bias: Tensor

    def figures(self) -> dict[str, float]:
        """Single numbers for a report; divergences and entropies with the natural log."""
        dims = len(self.feat_std)
        return {
            "num_prototypes": len(self.prior),
            "kl_to_prior": kl_divergence(self.assigned, self.prior),
            "kl_to_prior_without_sinkhorn": kl_divergence(
                self.own.sort(descending=True).values, self.prior.sort(descending=True).values
            ),
            "effective_prototypes": effective_number(self.assigned),
            "effective_prototypes_without_sinkhorn": effective_number(self.own),
            "effective_prototypes_of_prior": effective_number(self.prior),
            "feature_std": float(self.feat_std.mean()),
            "feature_std_isotropic": dims**-0.5,
        }


def load_projector(run: Run) -> Projector | None:
    """The run's teacher; None if its target has no prototypes (feature regression).

    Raises:
        FileNotFoundError: if the run has no checkpoint.
        ValueError: if the checkpoint does not fit the config.
    """
    state = run.trained.state
    model: Mapping[str, Any] = run.config.model
    weight = state.get("teacher.prototypes.weight", state.get("student.prototypes.weight"))
    if weight is None:
        return None
    head = ProjectionHead(model["backbone_out_channels"], **(model.get("head") or {}))
    load_strictly(head, run.trained.part("teacher", "head"), "teacher.head")
    sinkhorn = {k: v for k, v in (model.get("sinkhorn") or {}).items() if k != "type"}
    return Projector(
        backbone=load_backbone(run, "teacher"),
        head=frozen(head),
        prototypes=nn.functional.normalize(weight.float(), dim=1),
        sinkhorn=ZipfSinkhorn(**sinkhorn),
        temp=float(model.get("teacher_temp_base", TEACHER_TEMP)),
        up_cast_level=int(model.get("up_cast_level", UP_CAST_LEVEL)),
    )


def measure_usage(projector: Projector, scans: Sequence[Scan], rows: int = 20_000) -> Usage:
    """Usage over the points of some scans together, as over a large batch.

    Args:
        projector: the teacher.
        scans: at least one scan.
        rows: points used, evenly many per scan.

    Raises:
        ValueError: without scans.
    """
    if not scans:
        raise ValueError("scans: got none, expected at least one")
    parts = []
    for index, scan in enumerate(scans):
        feat = projector.project(scan)
        generator = torch.Generator().manual_seed(index)
        keep = torch.randperm(len(feat), generator=generator)[: max(1, rows // len(scans))]
        parts.append(feat[keep])
    feat = torch.cat(parts)
    logits = Logits(feat, projector.prototypes, projector.temp)
    scaling = projector.sinkhorn.scaling(logits)
    return Usage(
        prior=projector.sinkhorn.prior(len(projector.prototypes)),
        own=own_mass(logits),
        assigned=assigned_mass(logits, scaling),
        feat_std=feat.std(dim=0),
        scaling_bias=scaling.bias,
    )


def strongest_prototype(projector: Projector, scan: Scan, bias: Tensor) -> Tensor:
    """(N,) prototype with the largest assigned share at every voxel."""
    cosine = projector.project(scan) @ projector.prototypes.T
    return (cosine / projector.temp + bias).argmax(1)
