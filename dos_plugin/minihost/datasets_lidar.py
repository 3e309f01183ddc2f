"""LiDAR data sets as their publishers lay them out, read as the real host reads them."""

import glob
import os
from typing import Any

import numpy as np

from dos_plugin.unpickle import read_pickle

from .datasets import DefaultDataset
from .registry import DATASETS


@DATASETS.register_module()
class NuScenesDataset(DefaultDataset):
    """``info/nuscenes_infos_<sweeps>sweeps_<split>.pkl``, scans and labels below ``raw``.

    A sample has coord (N, 3), strength (N, 1) divided by 255, segment (N,) int64 (16 classes, -1
    elsewhere) and name, the token of the scan. One sweep only.

    Args:
        sweeps: The number in the name of the info file.
        **kwargs: As for :class:`~.datasets.DefaultDataset`; ``split`` is train, val, test or a
            list of these.

    Raises:
        FileNotFoundError: If an info file or a scan does not exist.
        ValueError: If a split is unknown.
    """

    data_list: Any

    # Class of each of the 32 lidarseg labels.
    CLASS = np.array(
        [-1, -1, 6, 6, 6, -1, 6, -1, -1, 0, -1, -1, 7, -1, 1, 2]
        + [2, 3, 4, -1, -1, 5, 8, 9, 10, 11, 12, 13, 14, -1, 15, -1]
    )

    def __init__(self, sweeps: int = 10, **kwargs) -> None:
        self.sweeps = sweeps
        super().__init__(**kwargs)

    def get_data_list(self) -> list:
        """Entries of the info files."""
        entries: list[dict] = []
        for split in _splits(self.split, ("train", "val", "test")):
            name = f"nuscenes_infos_{self.sweeps}sweeps_{split}.pkl"
            entries += read_pickle(os.path.join(self.data_root, "info", name))
        return entries

    def get_data(self, idx: int) -> dict[str, Any]:
        entry = self.data_list[idx % len(self.data_list)]
        raw = os.path.join(self.data_root, "raw")
        scan = _scan(os.path.join(raw, entry["lidar_path"]), columns=5)
        segment = np.full(len(scan), self.ignore_index, dtype=np.int64)
        if "gt_segment_path" in entry:
            label = np.fromfile(os.path.join(raw, entry["gt_segment_path"]), dtype=np.uint8)
            segment = self.CLASS[label]
            segment[segment < 0] = self.ignore_index
        return {
            "coord": scan[:, :3],
            "strength": scan[:, 3:4] / 255,
            "segment": segment,
            "name": self.get_data_name(idx),
        }

    def get_data_name(self, idx: int) -> str:
        """Token of the scan."""
        return self.data_list[idx % len(self.data_list)]["lidar_token"]


@DATASETS.register_module()
class SemanticKITTIDataset(DefaultDataset):
    """``dataset/sequences/<seq>/velodyne/*.bin`` and ``labels/*.label``.

    A sample has coord (N, 3), strength (N, 1) as stored, segment (N,) int32 (19 classes, -1
    elsewhere; **0 everywhere without a label file**, as on the real host) and name,
    ``<seq>_<frame>``.

    Args:
        **kwargs: As for :class:`~.datasets.DefaultDataset`; ``split`` is train, val, test or a
            list of these.

    Raises:
        FileNotFoundError: If a sequence of the split does not exist.
        ValueError: If a split is unknown.
    """

    SEQUENCES = {"train": (0, 1, 2, 3, 4, 5, 6, 7, 9, 10), "val": (8,), "test": range(11, 22)}
    # Class of each label; labels that are not here are ignored.
    CLASS = {
        10: 0, 11: 1, 13: 4, 15: 2, 16: 4, 18: 3, 20: 4, 30: 5, 31: 6, 32: 7, 40: 8, 44: 9,
        48: 10, 49: 11, 50: 12, 51: 13, 60: 8, 70: 14, 71: 15, 72: 16, 80: 17, 81: 18,
        252: 0, 253: 6, 254: 5, 255: 7, 256: 4, 257: 4, 258: 3, 259: 4,
    }  # fmt: skip

    def get_data_list(self) -> list[str]:
        """Paths of the scans, by sequence and frame."""
        paths: list[str] = []
        for split in _splits(self.split, tuple(self.SEQUENCES)):
            for sequence in self.SEQUENCES[split]:
                folder = os.path.join(self.data_root, "dataset/sequences", f"{sequence:02d}")
                folder = os.path.join(folder, "velodyne")
                paths += [os.path.join(folder, file) for file in sorted(os.listdir(folder))]
        return paths

    def get_data(self, idx: int) -> dict[str, Any]:
        path = self.data_list[idx % len(self.data_list)]
        scan = _scan(path, columns=4)
        segment = np.zeros(len(scan), dtype=np.int32)
        label_path = path.replace("velodyne", "labels").replace(".bin", ".label")
        if os.path.exists(label_path):
            table = np.full(1 << 16, self.ignore_index, dtype=np.int32)
            table[list(self.CLASS)] = list(self.CLASS.values())
            segment = table[np.fromfile(label_path, dtype=np.uint32) & 0xFFFF]
        return {
            "coord": scan[:, :3],
            "strength": scan[:, 3:4],
            "segment": segment,
            "name": self.get_data_name(idx),
        }

    def get_data_name(self, idx: int) -> str:
        """Sequence and frame."""
        folder, file = os.path.split(self.data_list[idx % len(self.data_list)])
        return f"{os.path.basename(os.path.dirname(folder))}_{os.path.splitext(file)[0]}"


@DATASETS.register_module()
class WaymoDataset(DefaultDataset):
    """Frames ``<split>/<sequence>/<frame>/*.npy`` with the assets of DefaultDataset, sorted.

    Args:
        timestamp: (0,): single frames; more is left to the real host.
        **kwargs: As for :class:`~.datasets.DefaultDataset`; ``split`` is a folder (training,
            validation, testing) or a list of these.

    Raises:
        FileNotFoundError: If a split has no frame.
    """

    def __init__(self, timestamp: tuple[int, ...] = (0,), **kwargs) -> None:
        if tuple(timestamp) != (0,):
            raise NotImplementedError(
                f"timestamp={timestamp!r} is not part of the embedded host: use the real host"
            )
        super().__init__(**kwargs)

    def get_data_list(self) -> list[str]:
        """Paths of the frames' folders."""
        frames: list[str] = []
        for split in [self.split] if isinstance(self.split, str) else self.split:
            pattern = os.path.join(self.data_root, split, "*", "*")
            found = [path for path in glob.glob(pattern) if os.path.isdir(path)]
            if not found:
                raise FileNotFoundError(f"split: there is no frame at {pattern!r}")
            frames += found
        return sorted(frames)

    def get_data_name(self, idx: int) -> str:
        """Sequence and frame."""
        folder, frame = os.path.split(self.data_list[idx % len(self.data_list)])
        return f"{os.path.basename(folder)}_{frame}"


def _splits(split, known: tuple[str, ...]) -> list[str]:
    splits = [split] if isinstance(split, str) else list(split)
    for name in splits:
        if name not in known:
            raise ValueError(f"split must be one of {known} or a list of these, got {name!r}")
    return splits


def _scan(path: str, columns: int) -> np.ndarray:
    values = np.fromfile(path, dtype=np.float32)
    if len(values) % columns:
        raise ValueError(f"{path!r} has {len(values)} numbers, not a multiple of {columns}")
    return values.reshape(-1, columns)
