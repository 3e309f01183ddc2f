"""Checks of what a backbone is given, so that a wrong batch is named and not met deep inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dos_plugin.minihost.point import Point, offset2bincount
from dos_plugin.minihost.serialization import check_grid


def check_input(data: Mapping[str, Any], in_channels: int, name: str, keys: Sequence[str]) -> Point:
    """Make a Point of a batch and check it.

    Args:
        data: The batch; its dict is copied, its tensors are not.
        in_channels: Expected width of ``feat``.
        name: Name of the backbone, for messages.
        keys: Keys that must be there beside ``grid_coord`` and ``offset`` (or ``batch``).

    Raises:
        ValueError: for a missing key, wrong shapes, offsets that do not fit, an empty cloud, or
            cells that are negative or too large.
    """
    missing = [key for key in keys if key not in data]
    if "offset" not in data and "batch" not in data:
        missing.append("offset")
    if missing:
        raise ValueError(f"{name}: missing {missing} in the input, which has {sorted(data)}")
    point = Point(data)
    point.ensure_grid_coord()
    feat, counts = point.feat, offset2bincount(point.offset)
    if feat.ndim != 2 or feat.shape[1] != in_channels:
        raise ValueError(
            f"{name}: feat needs shape (n, in_channels = {in_channels}), got {tuple(feat.shape)}"
        )
    empty = (counts <= 0).nonzero().flatten().tolist()
    if empty or len(counts) == 0:
        raise ValueError(
            f"{name}: every cloud of a batch needs a point; cloud(s) {empty} have none "
            f"(offset {point.offset.tolist()})"
        )
    if int(point.offset[-1]) != len(feat):
        raise ValueError(
            f"{name}: offset ends at {int(point.offset[-1])}, but feat has {len(feat)} rows"
        )
    for key in ("coord", "grid_coord", "batch", "mask"):
        if key in point and len(point[key]) != len(feat):
            raise ValueError(f"{name}: {key} has {len(point[key])} rows, feat has {len(feat)}")
    check_grid(point.grid_coord, len(counts))
    # Pooling packs batch and cells into 64 bits.
    point.grid_coord, point.batch = point.grid_coord.long(), point.batch.long()
    return point
