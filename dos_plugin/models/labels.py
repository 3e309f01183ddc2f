"""Labels of points against the classes of a model, in data sets and in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dos_plugin.host import HOST
from dos_plugin.messages import some, warn_counted
from dos_plugin.models.inputs import datasets

LOOKED_AT = 16  # scans of a data set, evenly spread


def ignored_label(criteria: Sequence[Mapping[str, Any]] | None) -> int:
    """The label that the losses pass over, -1 without losses.

    Raises:
        ValueError: If two losses name different ones.
    """
    named = [loss.get("ignore_index", -1) for loss in criteria or ()]
    found = {-1 if label is None else int(label) for label in named}
    if len(found) > 1:
        raise ValueError(f"model.criteria: ignore_index is {sorted(found)}, expected one for all")
    return found.pop() if found else -1


def check_data(config: Mapping[str, Any], num_classes: int, ignore_index: int) -> None:
    """Look at the labels of some scans of the data sets of a config, before training.

    Raises:
        ValueError: If ``data`` ignores another label, or a scan has labels that are no class.
    """
    ignored = (config.get("data") or {}).get("ignore_index", ignore_index)
    if ignored != ignore_index:
        raise ValueError(
            f"data.ignore_index={ignored}, but the losses have ignore_index={ignore_index}: "
            "make both the label of points without a class"
        )
    for place, name, labels in _some_labels(config):
        fault = unknown_labels(labels, num_classes, ignore_index)
        if fault:
            raise ValueError(f"{place}: scan {name} has {fault}")


def unknown_labels(labels: np.ndarray, num_classes: int, ignore_index: int) -> str:
    """Labels that are neither a class nor ignored, how many points have them, and what to do.

    Args:
        labels: Integers of any shape.
        num_classes: Classes, from 0.
        ignore_index: Label of points without a class.

    Returns:
        Words for an error; empty where all is well.
    """
    values, counts = np.unique(labels, return_counts=True)
    bad = ((values < 0) | (values >= num_classes)) & (values != ignore_index)
    if not bad.any():
        return ""
    listed = [f"{value} ({count:,} points)" for value, count in zip(values[bad], counts[bad])]
    return (
        f"segment {some(listed)}, expected 0 to {num_classes - 1} for num_classes={num_classes}, "
        f"or {ignore_index} to be ignored: map the labels (dos-plugin ingest --label-map), or set "
        "num_classes, or ignore_index of the losses and data sets"
    )


def count_labelled(
    segment: Tensor, offset: Tensor, num_classes: int, ignore_index: int, names: Sequence[str]
) -> int:
    """Points of a batch that have a class.

    Args:
        segment: (N,) int64.
        offset: (B,) cumulative point counts of the scans.
        num_classes: Classes, from 0.
        ignore_index: Label of points without a class.
        names: Of the scans; may be empty.

    Raises:
        ValueError: If labels are neither a class nor ignored; names the scan.
    """
    known = segment != ignore_index
    outside = ((segment < 0) | (segment >= num_classes)) & known
    labelled, bad = torch.stack([known.sum(), outside.sum()]).tolist()
    if bad:
        rows = torch.nonzero(outside).flatten()
        scan = int(torch.searchsorted(offset, rows[0], right=True))
        own = segment[(int(offset[scan - 1]) if scan else 0) : int(offset[scan])]
        # Mixed scans (mix_prob) have fewer offsets than names.
        name = names[scan] if len(names) == len(offset) else f"{scan} of a batch of {some(names)}"
        fault = unknown_labels(own.cpu().numpy(), num_classes, ignore_index)
        raise ValueError(f"scan {name} has {fault}")
    if not labelled:
        scans = some(names) or f"{len(offset)} scans"
        warn_counted("no labels", f"no point of {scans} has a label: the loss of the batch is 0")
    return labelled


def _some_labels(config: Mapping[str, Any]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Place of a data set, name of a scan and its labels, as far as they can be read here."""
    splits = ("train", "val") if config.get("evaluate", True) else ("train",)
    for _, place, found in datasets(config, splits):
        plain = {**found, "transform": [], "loop": 1, "test_mode": False}
        plain.pop("test_cfg", None)
        dataset = HOST.DATASETS.build(plain)
        count = len(dataset.data_list)
        for index in np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(int)):
            scan = dataset.get_data(int(index))
            if "segment" in scan:
                yield place, str(scan.get("name", index)), np.asarray(scan["segment"])
