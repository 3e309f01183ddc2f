"""Frozen features of labelled scans.

The grid size and the input features come from a run's own config, so that a backbone sees at the
probe what it saw in pretraining, without the random parts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dos_plugin.host import active_host
from dos_plugin.method.matching import row_features
from dos_plugin.models.extent import long_clouds_named
from dos_plugin.models.inputs import datasets, feature_keys, flat_steps, grid_size
from dos_plugin.runs.run import Run
from dos_plugin.seeding import seeded

# Transforms of a pretraining config that have no place in front of a frozen backbone: those that
# draw random numbers and those that only arrange what the pretraining model wants.
LEFT_OUT = {
    "BlockMask",
    "Collect",
    "CropBoundary",
    "ElasticDistortion",
    "HueSaturationTranslation",
    "ShufflePoint",
    "SphereCrop",
    "ToTensor",
}
LEFT_OUT_PREFIXES = ("Random", "Chromatic", "Clip")


@dataclass(frozen=True)
class Scan:
    """A scan as the backbone gets it. Letters: M points on disk, N voxels, c input channels.

    The label of a voxel is the label of the one point that grid sampling kept of it.

    Attributes:
        name: name of the scan's folder.
        coord: (N, 3) float32, metres, after the config's shifts.
        grid_coord: (N, 3) int64 cell of every voxel.
        feat: (N, c) float32 input features.
        segment: (N,) int64 class, -1 without label.
        origin_coord: (M, 3) float32, metres, all points as on disk.
        origin_segment: (M,) int64 class of all points.
        inverse: (M,) int64 voxel of every point.
        grid_size: edge of a voxel, metres.
    """

    name: str
    coord: Tensor
    grid_coord: Tensor
    feat: Tensor
    segment: Tensor
    origin_coord: np.ndarray
    origin_segment: np.ndarray
    inverse: np.ndarray
    grid_size: float

    @property
    def raw(self) -> Tensor:
        """(N, c + 3) what a probe of raw inputs gets: the input features and x, y, z."""
        return torch.cat([self.feat, self.coord], dim=1)


def scan_transform(transform: Sequence[Mapping]) -> list[dict]:
    """A deterministic transform for whole scans out of a pretraining transform.

    Shifts and copies stay, random transforms, crops and masks go, and of the grid samplings only
    the last one is left, since the others give the same voxels or finer ones.

    Raises:
        ValueError: if there is no GridSample.
    """
    whole = dict(type="Copy", keys_dict=dict(coord="origin_coord", segment="origin_segment"))
    flat = [
        step
        for step in flat_steps(transform)
        if step["type"] not in LEFT_OUT
        and not step["type"].startswith(LEFT_OUT_PREFIXES)
        and step != whole  # the result of an earlier call is taken, too
    ]
    grids = [index for index, step in enumerate(flat) if step["type"] == "GridSample"]
    if not grids:
        raise ValueError("data.train.transform: has no GridSample, expected one with a grid_size")
    flat[grids[-1]] |= dict(mode="train", return_grid_coord=True, return_inverse=True)
    kept = [step for index, step in enumerate(flat) if index not in grids[:-1]]
    # Points that PointId drops, not finite or far away, are no points of the scan for us either.
    first = next((i + 1 for i, step in enumerate(kept) if step["type"] == "PointId"), 0)
    return [*kept[:first], whole, *kept[first:]]


def dataset_config(config: Mapping[str, Any], data_root: str | Path | None = None) -> dict:
    """``data.train`` of a config; of several data sets that of the given root, else the first.

    Raises:
        ValueError: if there is none, or it has no transform.
    """
    parts = [dataset.config for dataset in datasets(config, ("train",))] or [{}]
    same = [part for part in parts if data_root and str(part.get("data_root")) == str(data_root)]
    found = dict((same or parts)[0])
    if "transform" not in found:
        raise ValueError("data.train.transform: missing in the config, expected that of a training")
    return found


def default_splits(run: Run, data_root: str | Path | None = None) -> tuple[str, str]:
    """Names of the splits to train a probe on and to score it on, as the data set has them."""
    waymo = dataset_config(run.config, data_root).get("type") == "WaymoDataset"
    return ("training", "validation") if waymo else ("train", "val")


class ScanSource:
    """The scans of one split, prepared as the config of a run asks.

    Args:
        run: the run whose grid size and input features count.
        data_root: root of the data set; the config's own if None.
        split: split of the data set; the config's own if None.
        limit: use the first scans only, evenly spread over the sorted list.

    Raises:
        FileNotFoundError: if the root or the split holds no scan.
        ValueError: if the config misses what a probe needs.
    """

    def __init__(
        self,
        run: Run,
        data_root: str | Path | None = None,
        split: str | None = None,
        limit: int | None = None,
    ) -> None:
        data = dataset_config(run.config, data_root)
        self.keys = feature_keys(data["transform"])
        config = {key: value for key, value in data.items() if key not in ("cache", "test_cfg")}
        config["transform"] = scan_transform(data["transform"])
        config |= dict(test_mode=False, loop=1)
        if data_root is not None:
            config["data_root"] = str(data_root)
        if split is not None:
            config["split"] = split
        root, self.split = config.get("data_root"), config.get("split")
        self.place = f"{root}/{self.split}"
        if root is None:
            raise ValueError("data_root: an exported file names none, give one (--data ROOT)")
        if not Path(str(root)).is_dir():
            raise FileNotFoundError(f"{root}: no such data root")
        self.dataset = active_host().DATASETS.build(config)
        if not self.dataset.data_list:
            raise FileNotFoundError(
                f"{self.place}: no scans there, expected the layout of {config['type']}"
            )
        if isinstance(self.dataset.data_list[0], str):  # else in the order of an index file
            self.dataset.data_list.sort()
        if limit is not None and limit < len(self.dataset.data_list):
            pick = np.linspace(0, len(self.dataset.data_list) - 1, limit).round().astype(int)
            self.dataset.data_list = [self.dataset.data_list[index] for index in pick]
        self.grid_size = grid_size(config["transform"])

    def __len__(self) -> int:
        return len(self.dataset.data_list)

    def __iter__(self) -> Iterator[Scan]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Scan:
        """The scan; grid sampling picks the same points every time."""
        with seeded(index):
            data = self.dataset[index]
        return as_scan(data, self.keys, self.grid_size, str(data.get("name", index)), self.place)


def as_scan(
    data: Mapping[str, Any], keys: Sequence[str], grid_size: float, name: str, place: str
) -> Scan:
    """A scan out of a sample that went through :func:`scan_transform`.

    Args:
        data: the sample.
        keys: names of the input features.
        grid_size: edge of a voxel, metres.
        name: name of the scan.
        place: where it comes from, for the message.

    Raises:
        ValueError: if it lacks an input feature.
    """
    columns = []
    for key in keys:
        if key not in data:
            raise ValueError(f"{place}: scans have no '{key}', an input of the backbone")
        columns.append(torch.as_tensor(np.asarray(data[key])).float())
    return Scan(
        name=name,
        coord=torch.as_tensor(np.asarray(data["coord"])).float(),
        grid_coord=torch.as_tensor(np.asarray(data["grid_coord"])).long(),
        feat=torch.cat(columns, dim=1),
        segment=torch.as_tensor(np.asarray(data["segment"])).long().flatten(),
        origin_coord=np.asarray(data["origin_coord"], dtype=np.float32),
        origin_segment=np.asarray(data["origin_segment"], dtype=np.int64).ravel(),
        inverse=np.asarray(data["inverse"], dtype=np.int64),
        grid_size=grid_size,
    )


def held_out_source(
    run: Run, data_root: str | Path | None = None, limit: int | None = None
) -> tuple[ScanSource, Exception | None]:
    """The scans for validation; where there are none, those of the config's own split.

    Whether there are any is tried, because every kind of data set keeps its splits elsewhere.

    Returns:
        The scans, and why they are not those for validation, else None.

    Raises:
        FileNotFoundError: if there are no scans at all.
        ValueError: if the config misses what a probe needs.
    """
    try:
        return ScanSource(run, data_root, default_splits(run, data_root)[1], limit), None
    except Exception as error:  # the host's data sets raise whatever they like
        return ScanSource(run, data_root, None, limit), error


@torch.no_grad()
def extract(backbone: nn.Module, scan: Scan, up_cast_level: int = -1) -> Tensor:
    """(N, C) features of the voxels; -1 concatenates all levels as the host does downstream."""
    device = next(backbone.parameters()).device
    batch = dict(
        feat=scan.feat,
        coord=scan.coord,
        grid_coord=scan.grid_coord,
        offset=torch.tensor([len(scan.coord)]),
    )
    batch = {key: value.to(device) for key, value in batch.items()}
    with long_clouds_named(batch["grid_coord"], batch["offset"], [scan.name]):
        output = backbone(active_host().Point(batch))
    feat, row_of_point = row_features(output, len(scan.coord), up_cast_level)
    return feat.index_select(0, row_of_point).float().cpu()


def count_classes(scans: Sequence[Scan], names: Sequence[str] = ()) -> int:
    """Number of classes: that of the names, or what the labels need.

    Raises:
        ValueError: if there is no scan, or no label in any scan.
    """
    if not scans:
        raise ValueError("scans: got none, expected at least one")
    largest = max(int(scan.segment.max()) if len(scan.segment) else -1 for scan in scans)
    if largest < 0:
        raise ValueError(
            f"{scans[0].name} and {len(scans) - 1} more scans have no labels, a probe needs "
            "segment.npy with classes from 0"
        )
    return max(len(names), largest + 1)


def check_labels(train: Sequence[Scan], val: Sequence[Scan]) -> None:
    """Look for two classes to train on and one to score, before the features are made.

    Raises:
        ValueError: if a side has no labels, or the training scans have one class only.
    """
    for side, scans, least in (("train", train, 2), ("val", val, 1)):
        if not scans:
            raise ValueError(f"scans: got none in {side}, expected at least one")
        found = {int(label) for scan in scans for label in scan.segment.unique() if label >= 0}
        if len(found) < least:
            raise ValueError(
                f"{side}: {len(scans)} scans as {scans[0].name} have labels of "
                f"{len(found)} classes{f' ({found.pop()})' if found else ''}, expected at least "
                f"{least}"
            )


def class_names(run: Run, data_root: str | Path | None = None) -> list[str]:
    """Class names from ``scenes.json`` of synthetic scenes or ``data.names`` of the config."""
    data = run.config.get("data") or {}
    root = Path(data_root or (data.get("train") or {}).get("data_root") or ".")
    return scene_class_names(root) or [str(name) for name in data.get("names") or ()]


def scene_class_names(root: Path) -> list[str]:
    """Class names from ``scenes.json`` of synthetic scenes, if there is one."""
    file = root / "scenes.json"
    if not file.is_file():
        return []
    return [str(name) for name in json.loads(file.read_text()).get("class_names") or ()]
