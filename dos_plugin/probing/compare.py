"""One probe for several feature sources: trained backbones, random weights, raw inputs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dos_plugin.models.backbone import Branch
from dos_plugin.probing.probe import (
    LabelledFeatures,
    ProbeSettings,
    Scores,
    knn_probe,
    linear_probe,
)
from dos_plugin.probing.scans import Scan, ScanSource, check_labels, count_classes, extract
from dos_plugin.runs.run import Run, load_backbone, random_backbone

# What can be probed: the networks in a checkpoint, and what they must beat.
SOURCES = {
    "student": "DOS, student",
    "teacher": "DOS, teacher",
    "segmentor": "segmentation run",
    "random": "random weights",
    "raw": "raw inputs",
}
# Those of a pretraining.
PRETRAINING = ("student", "teacher", "random", "raw")

# Random voxels kept of a scan, which bounds the memory: every probe seed draws its own of the
# training ones, and is scored on all of the validation ones.
KEPT_TRAIN, KEPT_VAL = 4000, 8000


def probe_run(
    run: Run,
    train: Sequence[Scan],
    val: Sequence[Scan],
    names: Sequence[str] = (),
    sources: Iterable[str] = PRETRAINING,
    settings: ProbeSettings | None = None,
    knn: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, Any]]:
    """Probe several feature sources on the same points with the same budget.

    Args:
        run: the run whose backbone is probed; ``random`` uses the weights it started from.
        train: scans to train the probes on.
        val: scans to score them on.
        names: class names; classes without a name are called by their number.
        sources: keys of ``SOURCES``.
        settings: budget of the probes.
        knn: also run the nearest-neighbour probe.
        say: called with a line when a source is done.

    Returns:
        A dict per source: ``miou``, ``miou_std``, ``accuracy`` (percent, means over the seeds),
        ``miou_seeds``, ``iou`` (class name to percent, None if absent from the labels),
        ``channels``, and the same scores of the other probe under ``knn``.

    Raises:
        ValueError: for an unknown source, and for scans that have no labels or one class only.
    """
    settings = settings or ProbeSettings()
    count_classes([*train, *val], names)
    check_labels(train, val)
    result = {}
    for source in sources:
        features = feature_function(run, source)
        entry = probe_features(features, train, val, names, settings, knn, SOURCES[source])
        result[source] = entry
        say(f"{SOURCES[source]}: {entry['miou']:.1f} mIoU")
    return result


def probe_features(
    features: Callable[[Scan], Tensor],
    train: Sequence[Scan],
    val: Sequence[Scan],
    names: Sequence[str] = (),
    settings: ProbeSettings | None = None,
    knn: bool = True,
    what: str = "features",
) -> dict[str, Any]:
    """Probe one feature source; an entry of :func:`probe_run`.

    Args:
        features: gives the (N, C) features of a scan's voxels.
        train: scans to train the probes on.
        val: scans to score them on.
        names: class names.
        settings: budget of the probes.
        knn: also run the nearest-neighbour probe.
        what: name of the source on the progress bar.

    Raises:
        ValueError: for scans that have no labels or one class only, and for features with NaN.
    """
    settings = settings or ProbeSettings()
    num_classes = count_classes([*train, *val], names)
    data = (
        gather(features, progress(train, f"{what}, train"), KEPT_TRAIN),
        gather(features, progress(val, f"{what}, val"), KEPT_VAL),
    )
    seeds = settings.seeds
    entry = average([linear_probe(*data, num_classes, s, settings) for s in seeds], names)
    entry["channels"] = data[0].feat.shape[1]
    if knn:
        entry["knn"] = average([knn_probe(*data, num_classes, s, settings) for s in seeds], names)
    return entry


def feature_function(run: Run, source: str) -> Callable[[Scan], Tensor]:
    """A function that gives the (N, C) features of a scan's voxels for a source.

    Raises:
        ValueError: if the source is unknown or the checkpoint does not fit.
    """
    if source not in SOURCES:
        raise ValueError(f"source: got {source!r}, expected one of {', '.join(SOURCES)}")
    if source == "raw":
        return lambda scan: scan.raw
    if source == "random":
        backbone = random_backbone(run)
    else:
        backbone = load_backbone(run, cast(Branch, source))
    return lambda scan: extract(backbone, scan)


def sources_of(run: Run) -> tuple[str, ...]:
    """What can be probed of a run: the networks in its checkpoint, random weights, raw inputs.

    Raises:
        ValueError: if the checkpoint is none, or of something else.
    """
    if run.checkpoint is None:
        return ("random", "raw")
    run.trained.check_ours()
    return (*run.trained.branches, "random", "raw")


def progress(items: Iterable[Any], what: str) -> Iterable[Any]:
    """The items under a progress bar, if there is a terminal and tqdm."""
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    return tqdm(items, what, unit="scan", leave=False, disable=not sys.stderr.isatty())


def gather(
    features: Callable[[Scan], Tensor], scans: Iterable[Scan], keep: int | None = None
) -> LabelledFeatures:
    """Features and labels of all scans, of at most ``keep`` random voxels each."""
    pairs = []
    for index, scan in enumerate(scans):
        feat, label = features(scan), scan.segment
        if keep is not None and keep < len(label):
            generator = torch.Generator().manual_seed(index)
            rows = torch.randperm(len(label), generator=generator)[:keep]
            feat, label = feat.index_select(0, rows), label[rows]
        pairs.append((feat, label))
    return LabelledFeatures.concat(pairs)


def raw_inputs(source: ScanSource) -> list[str]:
    """Names of what a probe of raw inputs gets."""
    return [*source.keys, "x", "y", "z"]


def average(scores: Sequence[Scores], names: Sequence[str] = ()) -> dict[str, Any]:
    """Mean and standard deviation (of the sample) of a probe's scores over its seeds.

    Args:
        scores: one a seed.
        names: class names; classes without a name are called by their number.

    Returns:
        ``miou``, ``miou_std``, ``miou_seeds``, ``accuracy``, percent, and ``iou``: class name to
        percent, None if absent from the labels.
    """
    miou = np.array([score.miou for score in scores])
    # A class is in the labels of all seeds or of none, but for kNN, which scores a sample.
    iou = np.stack([score.iou for score in scores])
    present = ~np.isnan(iou).all(axis=0)
    labels = [names[k] if k < len(names) else f"class {k}" for k in range(iou.shape[1])]
    return {
        "miou": float(miou.mean()),
        "miou_std": float(miou.std(ddof=1)) if len(miou) > 1 else 0.0,
        "miou_seeds": miou.tolist(),
        "accuracy": float(np.mean([score.accuracy for score in scores])),
        "iou": {
            label: float(np.nanmean(iou[:, k])) if present[k] else None
            for k, label in enumerate(labels)
        },
    }
