"""What a part of the host's YAML says, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dos_plugin.detection.grid import DetectionGrid


def options_of(model_cfg: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """Options in lower case, without ``NAME``; those that are null or empty are left out.

    Raises:
        ValueError: For one that is not known.
    """
    found = {key: value for key, value in model_cfg.items() if key != "NAME"}
    unknown = [key for key in found if key not in known]
    if unknown:
        raise ValueError(
            f"{model_cfg.get('NAME')}: unknown option {', '.join(unknown)}, expected some of "
            f"{', '.join(known)}"
        )
    return {key.lower(): _plain(value) for key, value in found.items() if value not in (None, "")}


def _plain(value: Any) -> Any:
    """Without the host's classes, and tuples where the project's configs have them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def grid_of(
    point_cloud_range: Sequence[float],
    voxel_size: Sequence[float],
    stride: int = 1,
    z_bins: int | None = None,
) -> DetectionGrid:
    """The grid of ``POINT_CLOUD_RANGE`` and ``VOXEL_SIZE``.

    Raises:
        ValueError: If the voxels are no cubes, or the range does not hold a whole number of cells.
    """
    edges = {float(str(edge)) for edge in voxel_size}
    if len(edges) != 1:
        raise ValueError(
            f"VOXEL_SIZE: expected one edge, that of the pretraining, three times; got {voxel_size}"
        )
    # the host has the range in float32, where -39.68 is not what the YAML says
    corners = tuple(float(str(value)) for value in point_cloud_range)
    return DetectionGrid(corners, edges.pop(), stride, z_bins)
