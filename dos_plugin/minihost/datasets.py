"""Datasets in the real host's on-disk layout: one folder of ``.npy`` files per sample."""

import glob
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from .log import get_logger
from .registry import DATASETS, build_dataset
from .transforms import Compose


@DATASETS.register_module()
class DefaultDataset(Dataset):
    """Samples ``<data_root>/<split>/<name>/<asset>.npy``, sorted by path.

    A sample has the assets found among :attr:`VALID_ASSETS` (coord, color, normal as float32
    (N, 3); segment, instance as int32 (N,), filled with -1 where the file is missing; the others
    as stored), and ``name`` and ``split``, the names of its folder and of the folder above.

    Args:
        split: A folder below ``data_root``, a JSON file below it that lists sample folders
            relative to it, or a list of these.
        data_root: Folder of the data set.
        transform: Configs of transforms.
        test_mode, test_cfg, cache: Left to the real host.
        ignore_index: Kept for downstream code; the dataset itself fills with -1.
        loop: How often each sample occurs in an epoch.

    Raises:
        FileNotFoundError: If ``data_root`` or a split does not exist.
        ValueError: If there is no sample, or a file is unreadable or of the wrong length.
    """

    VALID_ASSETS = ["coord", "color", "normal", "strength", "segment", "instance", "pose"]
    _PER_SCENE = ("pose",)

    def __init__(
        self,
        split: str | Sequence[str] = "train",
        data_root: str = "data/dataset",
        transform: list | None = None,
        test_mode: bool = False,
        test_cfg: dict | None = None,
        cache: bool = False,
        ignore_index: int = -1,
        loop: int = 1,
    ) -> None:
        super().__init__()
        if test_mode:
            raise NotImplementedError(
                "test_mode=True is not part of the embedded host: use the real host"
            )
        if cache:
            raise NotImplementedError(
                "cache=True is not part of the embedded host: use the real host"
            )
        self.split = split
        self.data_root = data_root
        self.transform = Compose(transform)
        self.test_mode = test_mode
        self.test_cfg = test_cfg
        self.cache = cache
        self.ignore_index = ignore_index
        self.loop = loop
        self.data_list = self.get_data_list()
        get_logger().info(
            f"{len(self.data_list)} samples{_times(self.loop)} in {data_root}, split {split}"
        )

    def get_data_list(self) -> list[str]:
        """Paths of the sample folders."""
        if not os.path.isdir(self.data_root):
            raise FileNotFoundError(f"data_root: there is no folder {self.data_root!r}")
        splits = [self.split] if isinstance(self.split, str) else list(self.split)
        data_list: list[str] = []
        for split in splits:
            path = os.path.join(self.data_root, split)
            found = self._read_list(path) if os.path.isfile(path) else _find_samples(path)
            if not found:
                raise ValueError(f"split {split!r}: there is no sample folder in {path!r}")
            data_list += found
        if not data_list:
            raise ValueError(f"split: no split is given for {self.data_root!r}")
        return data_list

    def _read_list(self, path: str) -> list[str]:
        """Sample folders of a JSON list, relative to ``data_root``."""
        try:
            with open(path, encoding="utf-8") as file:
                names = json.load(file)
        except ValueError as error:
            raise ValueError(f"split: {path!r} is no JSON file: {error}") from error
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError(f"split: {path!r} must hold a list of sample folders")
        return [os.path.join(self.data_root, name) for name in names]

    def get_data(self, idx: int) -> dict[str, Any]:
        """The sample as it is on disk, before any transform."""
        folder = self.data_list[idx % len(self.data_list)]
        if not os.path.isfile(os.path.join(folder, "coord.npy")):
            raise FileNotFoundError(f"the sample {folder!r} has no coord.npy")
        data: dict[str, Any] = {}
        for asset in self.VALID_ASSETS:
            path = os.path.join(folder, f"{asset}.npy")
            if os.path.isfile(path):
                data[asset] = _load(path)
        coord = data["coord"]
        if coord.ndim != 2 or coord.shape[1] != 3:
            raise ValueError(f"{folder}/coord.npy must have shape (N, 3), got {coord.shape}")
        for asset in ("coord", "color", "normal"):
            if asset in data:
                data[asset] = data[asset].astype(np.float32)
        for asset in ("segment", "instance"):
            if asset in data:
                data[asset] = data[asset].reshape(-1).astype(np.int32)
            else:
                data[asset] = np.full(len(coord), -1, dtype=np.int32)
        for asset, value in data.items():
            if asset not in self._PER_SCENE and len(value) != len(coord):
                raise ValueError(
                    f"{folder}/{asset}.npy has {len(value)} rows, but coord.npy has {len(coord)}"
                )
        data["name"] = self.get_data_name(idx)
        data["split"] = self.get_split_name(idx)
        return data

    def get_data_name(self, idx: int) -> str:
        """Name of the sample's folder."""
        return os.path.basename(self.data_list[idx % len(self.data_list)])

    def get_split_name(self, idx: int) -> str:
        """Name of the folder above the sample's."""
        return os.path.basename(os.path.dirname(self.data_list[idx % len(self.data_list)]))

    def __getitem__(self, idx: int) -> dict[str, Any]:
        return self.transform(self.get_data(idx))

    def __len__(self) -> int:
        return len(self.data_list) * self.loop


def _times(loop: int) -> str:
    """How often an epoch reads a sample, where that is not once."""
    return f", each {loop} times an epoch," if loop > 1 else ""


def _find_samples(pattern: str) -> list[str]:
    """Sample folders below a split folder (which may hold wildcards, as on the real host)."""
    if not glob.glob(pattern):
        raise FileNotFoundError(f"split: there is no file or folder {pattern!r}")
    return sorted(path for path in glob.glob(os.path.join(pattern, "*")) if os.path.isdir(path))


def _load(path: str) -> np.ndarray:
    try:
        array = np.load(path)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"cannot read the array file {path!r}: {error}") from error
    if array.ndim == 0:
        raise ValueError(
            f"the array file {path!r} holds a single number, expected one row per point"
        )
    return array


@DATASETS.register_module()
class ConcatDataset(Dataset):
    """Several datasets in a row, each with its own ``loop``, all repeated ``loop`` times."""

    def __init__(self, datasets: list[dict], loop: int = 1) -> None:
        super().__init__()
        self.datasets = [build_dataset(cfg) for cfg in datasets]
        self.loop = loop
        self.data_list = [
            (which, index)
            for which, dataset in enumerate(self.datasets)
            for index in range(len(dataset))
        ]
        get_logger().info(
            f"{len(self.data_list)} samples{_times(loop)} in {len(self.datasets)} datasets"
        )

    def _locate(self, idx: int) -> tuple[Any, int]:
        which, index = self.data_list[idx % len(self.data_list)]
        return self.datasets[which], index

    def get_data_name(self, idx: int) -> str:
        """Name of the sample in its own dataset."""
        dataset, index = self._locate(idx)
        return dataset.get_data_name(index)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        dataset, index = self._locate(idx)
        return dataset[index]

    def __len__(self) -> int:
        return len(self.data_list) * self.loop
