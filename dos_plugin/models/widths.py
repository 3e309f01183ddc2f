"""Width of the input features that a data set's transforms collect."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Columns of the per-point keys of the host and of this package.
WIDTHS = {"coord": 3, "color": 3, "normal": 3, "strength": 1, "height": 1}


def collected_width(transform: Sequence[Mapping] | None) -> tuple[int, tuple[str, ...]] | None:
    """Columns and names of ``feat`` as ``Collect`` makes it of ``feat_keys``.

    Returns:
        None where there is no such Collect, or a key's width is not known.
    """
    for step in reversed(list(transform or [])):
        keys = step.get("feat_keys")
        if step.get("type") == "Collect" and keys:
            names = (keys,) if isinstance(keys, str) else tuple(keys)
            if all(name in WIDTHS for name in names):
                return sum(WIDTHS[name] for name in names), names
            return None
    return None


def check_in_channels(in_channels: int | None, data: Mapping[str, Any]) -> None:
    """Compare a backbone's input with what the data sets of a config collect.

    Args:
        in_channels: ``model.backbone.in_channels``; None checks nothing.
        data: ``cfg.data``.

    Raises:
        ValueError: If they differ; names both keys.
    """
    for place, dataset in _datasets(data):
        found = collected_width(dataset.get("transform"))
        if in_channels is not None and found is not None and found[0] != in_channels:
            width, keys = found
            columns = ", ".join(f"{key} {WIDTHS[key]}" for key in keys)
            raise ValueError(
                f"model.backbone.in_channels={in_channels}, but feat_keys of {place}.transform "
                f"collect {width} columns ({columns}): make both as in pretraining"
            )


def _datasets(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping]]:
    for split in ("train", "val"):
        dataset = data.get(split) or {}
        parts = dataset.get("datasets")
        if parts is None:
            yield f"data.{split}", dataset
        for number, part in enumerate(parts or []):
            yield f"data.{split}.datasets.{number}", part
