"""What a config feeds a backbone with: its data sets, voxels and input features.

Plain values are read, so that it serves configs of both hosts and those read without one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

# Columns of the per-point keys of the host and of this package.
WIDTHS = {"coord": 3, "color": 3, "normal": 3, "strength": 1, "height": 1}
# Collect's features for a segmentor, and for DOS, whose two views have the same.
FEAT_KEYS = ("feat_keys", "view1_feat_keys")


class Dataset(NamedTuple):
    """A data set of a config, one of several in a ConcatDataset.

    Attributes:
        split: ``"train"``, ``"val"`` or ``"test"``.
        place: its key, as ``data.train.datasets.0``.
        config: its config.
    """

    split: str
    place: str
    config: Mapping[str, Any]


def datasets(config: Mapping[str, Any], splits: Sequence[str]) -> Iterator[Dataset]:
    """The data sets of some splits of a config, those of a ConcatDataset one by one."""
    for split in splits:
        found = (config.get("data") or {}).get(split)
        if not found:
            continue
        if not found.get("datasets"):
            yield Dataset(split, f"data.{split}", found)
        for number, part in enumerate(found.get("datasets") or ()):
            yield Dataset(split, f"data.{split}.datasets.{number}", part)


def feature_keys(transform: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of the input features, from Collect: ``view1_strength`` is ``strength``.

    Raises:
        ValueError: if no Collect has ``view1_feat_keys`` or ``feat_keys``.
    """
    for step in reversed(list(transform)):
        keys = next((step[key] for key in FEAT_KEYS if step.get(key)), None)
        if step.get("type") == "Collect" and keys:
            names = (keys,) if isinstance(keys, str) else tuple(keys)
            return tuple(name.removeprefix("view1_") for name in names)
    raise ValueError("data.train.transform: no Collect with view1_feat_keys, the input features")


def flat_steps(transform: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The steps of a transform, those of views in the place of the step that makes the views."""
    flat: list[dict[str, Any]] = []
    for step in transform:
        if "view_transform" in step:
            flat += [dict(inner) for inner in step["view_transform"]]
        else:
            flat.append(dict(step))
    return flat


def grid_size(transform: Sequence[Mapping[str, Any]]) -> float:
    """Edge of the voxels that a backbone gets, metres: that of the last GridSample.

    Raises:
        ValueError: if there is no GridSample.
    """
    for step in reversed(flat_steps(transform)):
        if step.get("type") == "GridSample":
            return float(step["grid_size"])
    raise ValueError("data.train.transform: has no GridSample, expected one with a grid_size")


def check_in_channels(in_channels: int | None, config: Mapping[str, Any]) -> None:
    """Compare a backbone's input with what the data sets of a config collect.

    Features whose width is not known, and transforms that collect none, are passed over.

    Args:
        in_channels: ``model.backbone.in_channels``; None checks nothing.
        config: with ``data``.

    Raises:
        ValueError: If they differ; names both keys.
    """
    for _, place, dataset in datasets(config, ("train", "val")):
        try:
            keys = feature_keys(dataset.get("transform") or ())
        except ValueError:
            continue
        if in_channels is None or not all(key in WIDTHS for key in keys):
            continue
        width = sum(WIDTHS[key] for key in keys)
        if width != in_channels:
            columns = ", ".join(f"{key} {WIDTHS[key]}" for key in keys)
            raise ValueError(
                f"model.backbone.in_channels={in_channels}, but feat_keys of {place}.transform "
                f"collect {width} columns ({columns}): make both as in pretraining"
            )
