"""Linear and nearest-neighbour probes of frozen features, and the scores they are judged by.

Every function here works on plain arrays; :mod:`dos_plugin.probing.scans` makes the features from a
run and :mod:`dos_plugin.probing.compare` puts several feature sources through the very same probe.

Letters: N points, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

IGNORE = -1


@dataclass(frozen=True)
class Scores:
    """Segmentation scores of one prediction, in percent.

    Attributes:
        miou: mean IoU over the classes that occur in the labels.
        accuracy: share of points with the right class.
        iou: (K,) IoU per class; NaN for a class that does not occur in the labels.
    """

    miou: float
    accuracy: float
    iou: np.ndarray


@dataclass(frozen=True)
class ProbeSettings:
    """Budget of the probes; the same for every feature source that is compared.

    Attributes:
        seeds: seeds of the sampled points, the initial weights and the batch order.
        steps: optimiser steps of the linear probe.
        batch_size: points per step.
        lr: peak learning rate of AdamW, cosine decay to zero after a short warm-up.
        weight_decay: AdamW weight decay.
        balance: exponent b of the class weights ``frequency**-b``; 0 is plain cross-entropy, 1 is
            fully class-balanced cross-entropy.
        train_points: points per training scan.
        knn_neighbours: neighbours that vote.
        knn_temp: temperature of the votes ``exp(cosine / temperature)``.
        knn_bank: size of the class-balanced bank of labelled points.
        knn_queries: validation points that are classified, over all scans.
    """

    seeds: Sequence[int] = (0, 1, 2)
    steps: int = 500
    batch_size: int = 2048
    lr: float = 0.01
    weight_decay: float = 0.01
    balance: float = 0.5
    train_points: int = 2000
    knn_neighbours: int = 20
    knn_temp: float = 0.07
    knn_bank: int = 8000
    knn_queries: int = 8000

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("seeds: got an empty list, expected at least one seed")
        for name in ("steps", "batch_size", "train_points", "knn_neighbours", "knn_bank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        if not 0.0 <= self.balance <= 1.0:
            raise ValueError(f"balance: got {self.balance}, expected a number from 0 to 1")
        if not self.knn_temp > 0:
            raise ValueError(f"knn_temp: got {self.knn_temp}, expected a positive number")


@dataclass
class LabelledFeatures:
    """Features and labels of the points of several scans.

    Attributes:
        feat: (N, C) float32 features.
        label: (N,) int64 classes; -1 is ignored.
        scan: (N,) int64 index of the scan of every point.
    """

    feat: Tensor
    label: Tensor
    scan: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def __post_init__(self) -> None:
        if self.scan.numel() == 0 and len(self.label):
            self.scan = torch.zeros(len(self.label), dtype=torch.int64)
        if self.feat.ndim != 2:
            raise ValueError(f"feat: got shape {tuple(self.feat.shape)}, expected (N, C)")
        if not len(self.feat) == len(self.label) == len(self.scan):
            raise ValueError(
                f"label: got {len(self.label)} labels and {len(self.scan)} scan indices "
                f"for {len(self.feat)} points, expected one of each per point"
            )

    @staticmethod
    def concat(scans: Sequence[tuple[Tensor, Tensor]]) -> LabelledFeatures:
        """Join (feat, label) pairs of scans and number the scans; raises ValueError if none."""
        if not scans:
            raise ValueError("scans: got none, expected at least one scan with features")
        index = [torch.full((len(feat),), i) for i, (feat, _) in enumerate(scans)]
        return LabelledFeatures(
            feat=torch.cat([feat for feat, _ in scans]).float(),
            label=torch.cat([label for _, label in scans]).long(),
            scan=torch.cat(index),
        )

    def labelled(self) -> LabelledFeatures:
        """The points with a label (class >= 0)."""
        if bool((self.label >= 0).all()):
            return self
        return self.rows(torch.nonzero(self.label >= 0).flatten())

    def rows(self, index: Tensor) -> LabelledFeatures:
        """The points of the given row indices."""
        return LabelledFeatures(
            self.feat.index_select(0, index), self.label[index], self.scan[index]
        )


def confusion_matrix(label: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """Count points by (label, prediction); labels below 0 are left out.

    Args:
        label: (N,) int classes.
        prediction: (N,) int classes.
        num_classes: K.

    Returns:
        (K, K) int64, rows are labels.

    Raises:
        ValueError: if the lengths differ or a class is out of range.
    """
    if len(label) != len(prediction):
        raise ValueError(f"prediction: got {len(prediction)} for {len(label)} labels")
    keep = label >= 0
    label, prediction = label[keep].long(), prediction[keep].long()
    for name, values in (("label", label), ("prediction", prediction)):
        if len(values) and (int(values.min()) < 0 or int(values.max()) >= num_classes):
            raise ValueError(
                f"{name}: got classes {int(values.min())} to {int(values.max())}, "
                f"expected 0 to {num_classes - 1}"
            )
    return torch.bincount(label * num_classes + prediction, minlength=num_classes**2).reshape(
        num_classes, num_classes
    )


def scores(confusion: Tensor) -> Scores:
    """Mean IoU over the classes that occur in the labels, IoU per class, overall accuracy.

    A class that is only predicted lowers the IoU of the classes it is confused with, but is no
    term of the mean.

    Raises:
        ValueError: if the matrix counts no point.
    """
    matrix = confusion.double()
    total = matrix.sum()
    if total == 0:
        raise ValueError("label: no labelled point to score, expected at least one class >= 0")
    hit, in_label, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    iou = 100 * hit / (in_label + predicted - hit).clamp(min=1)
    iou[in_label == 0] = torch.nan
    return Scores(
        miou=float(iou.nanmean()), accuracy=float(100 * hit.sum() / total), iou=iou.numpy()
    )


def linear_probe(
    train: LabelledFeatures,
    val: LabelledFeatures,
    num_classes: int,
    seed: int = 0,
    settings: ProbeSettings | None = None,
) -> Scores:
    """Train one linear layer on frozen features and score it on the validation points.

    Features are standardised with the mean and standard deviation of the sampled training points,
    which makes the result independent of the scale of a feature source.

    Args:
        train: points to train on; ``settings.train_points`` of every scan are drawn.
        val: points to score, all of them.
        num_classes: K.
        seed: draws the points, the initial weights and the batches.
        settings: the budget.

    Raises:
        ValueError: without labels, with one class only, or if the channels differ.
    """
    settings = settings or ProbeSettings()
    train, val = _checked(train, val, num_classes)
    generator = torch.Generator().manual_seed(seed)
    train = train.rows(sample_per_scan(train.scan, settings.train_points, generator))
    mean, scale = standardisation(train.feat)
    feat, label = (train.feat - mean) * scale, train.label
    weight, bias = _fit_linear(feat, label, num_classes, settings, generator)
    # The standardisation is folded into the layer, so validation features are used as they are.
    folded = weight * scale
    logits = torch.addmm(bias - folded @ mean, val.feat, folded.T)
    return scores(confusion_matrix(val.label, logits.argmax(1), num_classes))


def knn_probe(
    train: LabelledFeatures,
    val: LabelledFeatures,
    num_classes: int,
    seed: int = 0,
    settings: ProbeSettings | None = None,
) -> Scores:
    """Classify validation points by the weighted votes of their nearest training points.

    Arguments and errors as :func:`linear_probe`. The bank holds the same number of points of every
    class as far as the class has them; features are standardised with the bank's statistics.
    """
    settings = settings or ProbeSettings()
    train, val = _checked(train, val, num_classes)
    generator = torch.Generator().manual_seed(seed)
    bank = train.rows(balanced_sample(train.label, settings.knn_bank, generator))
    queries = val.rows(torch.randperm(len(val.label), generator=generator)[: settings.knn_queries])
    mean, scale = standardisation(bank.feat)
    prediction = knn_predict(
        (bank.feat - mean) * scale,
        bank.label,
        (queries.feat - mean) * scale,
        num_classes,
        settings.knn_neighbours,
        settings.knn_temp,
    )
    return scores(confusion_matrix(queries.label, prediction, num_classes))


def knn_predict(
    bank: Tensor,
    bank_label: Tensor,
    queries: Tensor,
    num_classes: int,
    neighbours: int = 20,
    temp: float = 0.07,
    block: int = 1024,
) -> Tensor:
    """Class with the largest sum of ``exp(cosine / temp)`` over the nearest bank points.

    Args:
        bank: (B, C) features of labelled points.
        bank_label: (B,) int64 classes.
        queries: (N, C) features.
        num_classes: K.
        neighbours: votes per query; at most B are used.
        temp: temperature of the votes.
        block: queries per step, so that only (block, B) similarities exist at a time.

    Returns:
        (N,) int64 classes.
    """
    bank = torch.nn.functional.normalize(bank, dim=1)
    result = []
    for part in queries.split(block):
        cosine = torch.nn.functional.normalize(part, dim=1) @ bank.T
        value, index = cosine.topk(min(neighbours, len(bank)), dim=1)
        votes = torch.zeros(len(part), num_classes)
        # Subtracting 1, the largest cosine, keeps exp within range and changes no ranking.
        votes.scatter_add_(1, bank_label[index], ((value - 1) / temp).exp())
        result.append(votes.argmax(1))
    return torch.cat(result) if result else torch.empty(0, dtype=torch.int64)


def standardisation(feat: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and inverse standard deviation (C,); constant channels get the factor 0."""
    deviation, mean = torch.std_mean(feat, dim=0, correction=0)
    alive = deviation > 1e-6 * feat.abs().amax(0).clamp(min=1e-6)
    return mean, torch.where(alive, 1 / deviation.clamp(min=1e-12), 0.0)


def sample_per_scan(scan: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Row indices of at most ``count`` random points of every scan."""
    rows = []
    for index in scan.unique():
        own = torch.nonzero(scan == index).flatten()
        rows.append(own[torch.randperm(len(own), generator=generator)[:count]])
    return torch.cat(rows)


def balanced_sample(label: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Row indices of about ``count`` points, as evenly spread over the classes as they allow."""
    shuffled = torch.randperm(len(label), generator=generator)
    classes, size = label.unique(return_counts=True)
    rows, left = [], count
    for done, position in enumerate(size.argsort()):
        # Classes are served from the rarest on; what they cannot use goes to the next ones.
        share = max(1, left // (len(classes) - done))
        own = shuffled[label[shuffled] == classes[position]][:share]
        rows.append(own)
        left -= len(own)
    return torch.cat(rows)


def _checked(
    train: LabelledFeatures, val: LabelledFeatures, num_classes: int
) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Labelled points of both sides, or a ValueError that says what is missing."""
    if train.feat.shape[1] != val.feat.shape[1]:
        raise ValueError(
            f"val: got {val.feat.shape[1]} channels, expected {train.feat.shape[1]} as in train"
        )
    for name, side in (("train", train), ("val", val)):
        found = side.label[side.label >= 0].unique()
        if len(found) == 0:
            raise ValueError(
                f"{name}: none of its {len(side.label)} points has a label, a probe needs labels "
                "(segment.npy with classes from 0)"
            )
        if int(found.max()) >= num_classes:
            raise ValueError(
                f"{name}: got class {int(found.max())}, expected classes below {num_classes}"
            )
        if name == "train" and len(found) == 1:
            raise ValueError(
                f"train: all labelled points are of class {int(found[0])}, expected two or more"
            )
        if not bool(torch.isfinite(side.feat).all()):
            raise ValueError(f"{name}: features hold NaN or infinite values")
    return train.labelled(), val.labelled()


def _fit_linear(
    feat: Tensor,
    label: Tensor,
    num_classes: int,
    settings: ProbeSettings,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Weight (K, C) and bias (K,) after a fixed number of AdamW steps."""
    frequency = torch.bincount(label, minlength=num_classes).float()
    class_weight = torch.where(frequency > 0, frequency.clamp(min=1) ** -settings.balance, 0.0)
    class_weight /= class_weight[label].mean()
    weight = (0.01 * torch.randn(num_classes, feat.shape[1], generator=generator)).requires_grad_()
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.AdamW([weight, bias], settings.lr, weight_decay=settings.weight_decay)
    warm_up = max(1, settings.steps // 20)
    order, start = torch.randperm(len(feat), generator=generator), 0
    for step in range(settings.steps):
        if start >= len(feat):
            order, start = torch.randperm(len(feat), generator=generator), 0
        rows = order[start : start + settings.batch_size]
        start += settings.batch_size
        progress = step / settings.steps
        rate = settings.lr * min(1.0, (step + 1) / warm_up) * 0.5 * (1 + np.cos(np.pi * progress))
        optimizer.param_groups[0]["lr"] = float(rate)
        logits = torch.addmm(bias, feat.index_select(0, rows), weight.T)
        loss = torch.nn.functional.cross_entropy(logits, label[rows], class_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return weight.detach(), bias.detach()
