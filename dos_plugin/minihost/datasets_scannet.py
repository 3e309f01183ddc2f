"""ScanNet in the layout of the real host's preprocessing."""

from typing import Any

from .datasets import DefaultDataset
from .registry import DATASETS


@DATASETS.register_module()
class ScanNetDataset(DefaultDataset):
    """Scenes ``<split>/<scene>/`` with coord, color, normal, segment20 and instance.

    A sample is that of :class:`~.datasets.DefaultDataset`, with the 20 classes as ``segment``.

    Args:
        lr_file, la_file: Left to the real host.
        **kwargs: As for DefaultDataset.

    Raises:
        FileNotFoundError: As for DefaultDataset, and if a scene lacks color or normal.
    """

    SEGMENT = "segment20"
    VALID_ASSETS = ["coord", "color", "normal", SEGMENT, "instance"]

    def __init__(self, lr_file=None, la_file=None, **kwargs) -> None:
        if lr_file is not None or la_file is not None:
            raise NotImplementedError(
                "lr_file and la_file are not part of the embedded host: use the real host"
            )
        super().__init__(**kwargs)

    def get_data(self, idx: int) -> dict[str, Any]:
        data = super().get_data(idx)
        for asset in ("color", "normal"):
            if asset not in data:
                folder = self.data_list[idx % len(self.data_list)]
                raise FileNotFoundError(f"the scene {folder!r} has no {asset}.npy")
        if self.SEGMENT in data:
            data["segment"] = data.pop(self.SEGMENT).reshape(-1).astype("int32")
        return data


@DATASETS.register_module()
class ScanNet200Dataset(ScanNetDataset):
    """The same scenes with the 200 classes of segment200."""

    SEGMENT = "segment200"
    VALID_ASSETS = ["coord", "color", "normal", SEGMENT, "instance"]
