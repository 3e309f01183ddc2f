"""A collated batch of two views as one packed batch of clouds, checked."""

from typing import NamedTuple

import torch
from torch import Tensor

from dos_plugin.messages import warn_counted

VIEWS = ("view1", "view2")
KEYS = ("coord", "grid_coord", "feat", "point_id", "visible")


class Clouds(NamedTuple):
    """N points of C clouds, points of a cloud contiguous."""

    coord: Tensor  # (N, 3) float32, metres
    grid_coord: Tensor  # (N, 3) int64, cells of the cloud's view
    feat: Tensor  # (N, channels) float32
    point_id: Tensor  # (N,) int64, permanent within the scene
    visible: Tensor  # (N,) bool, seen by the student
    cloud: Tensor  # (N,) int64

    def select(self, index: Tensor) -> "Clouds":
        """The points of an index or a boolean mask."""
        return Clouds(*(value[index] for value in self))

    def offset(self, num_clouds: int) -> Tensor:
        """(num_clouds,) cumulative point counts."""
        clouds = torch.arange(num_clouds, device=self.cloud.device)
        return torch.searchsorted(self.cloud, clouds, right=True)


class Views(NamedTuple):
    """Both views of B scenes: clouds 0..B-1 are the first views, B..2B-1 the second ones."""

    clouds: Clouds
    num_scenes: int
    num_visible: int  # points of all clouds that the student sees

    @property
    def partner(self) -> Tensor:
        """(N,) cloud that holds the other view of each point's scene."""
        return (self.clouds.cloud + self.num_scenes) % (2 * self.num_scenes)


def read_views(batch: dict, min_visible: int) -> Views:
    """Read and check the views of a batch; leave out scenes that are too small to learn from.

    Args:
        batch: ``view1_coord``, ``view1_grid_coord``, ``view1_feat``, ``view1_offset``,
            ``view1_point_id``, ``view1_visible`` and the same of ``view2``.
        min_visible: Scenes with fewer visible points in a view are left out, with a counted
            warning.

    Returns:
        The views of the scenes that remain, possibly none.

    Raises:
        KeyError: If a key is missing; names it.
        ValueError: If a per-point key has another number of rows than the offset says.
    """
    parts: list[Clouds] = []
    ends: list[Tensor] = []
    for view in VIEWS:
        offset = _get(batch, f"{view}_offset").long()
        values = {key: _get(batch, f"{view}_{key}") for key in KEYS}
        num_points = len(values["coord"])
        for key, value in values.items():
            if len(value) != num_points:
                raise ValueError(
                    f"batch key '{view}_{key}' has {len(value)} rows, '{view}_coord' has "
                    f"{num_points}"
                )
        if ends and len(offset) != len(ends[0]):
            raise ValueError(
                f"batch key '{view}_offset' has {len(offset)} scenes, '{VIEWS[0]}_offset' has "
                f"{len(ends[0])}"
            )
        point = torch.arange(num_points, device=offset.device)
        cloud = torch.searchsorted(offset, point, right=True) + len(offset) * len(parts)
        parts.append(Clouds(**values, cloud=cloud))
        seen = torch.nn.functional.pad(values["visible"].cumsum(0), (1, 0))
        ends += [offset, seen[offset.clamp(0, num_points)]]
    offset1, seen1, offset2, seen2 = torch.stack(ends).tolist()  # waits for the device
    for view, part, offset in zip(VIEWS, parts, (offset1, offset2)):
        if offset[-1] != len(part.coord):
            raise ValueError(
                f"batch key '{view}_offset' ends with {offset[-1]}, but '{view}_coord' has "
                f"{len(part.coord)} rows"
            )
    clouds = Clouds(*(torch.cat(values) for values in zip(*parts)))
    views = Views(clouds, num_scenes=len(offset1), num_visible=seen1[-1] + seen2[-1])
    fewest = [
        min(a - b, c - d) for a, b, c, d in zip(seen1, [0, *seen1[:-1]], seen2, [0, *seen2[:-1]])
    ]
    small = [scene for scene, count in enumerate(fewest) if count < min_visible]
    if not small:
        return views
    names = batch.get("name")
    warn_counted(
        "scenes left out",
        f"DOS: scene(s) {[names[i] for i in small] if names else small} of a batch have fewer "
        f"than {min_visible} visible points in a view and are left out of this step",
    )
    return _without(views, small)


def jitter_masked(clouds: Clouds, sigma: float, batch: dict) -> Clouds:
    """Move points that are not visible, and the grid cells they lie in (DOS ablation).

    Args:
        clouds: Packed points.
        sigma: Standard deviation of the noise, metres; it is clipped at twice that.
        batch: Holds ``grid_size``, the edge of a grid cell, metres.

    Raises:
        KeyError: If ``grid_size`` is missing.
    """
    grid_size = _get(batch, "grid_size").flatten()[0].to(clouds.coord.dtype)
    noise = (torch.randn_like(clouds.coord) * sigma).clamp_(-2 * sigma, 2 * sigma)
    coord = torch.where(clouds.visible[:, None], clouds.coord, clouds.coord + noise)
    shift = torch.floor(coord / grid_size) - torch.floor(clouds.coord / grid_size)
    grid_coord = (clouds.grid_coord + shift.long()).clamp_min_(0)
    return clouds._replace(coord=coord, grid_coord=grid_coord)


def one_point_clouds(like: Clouds) -> Clouds:
    """Two clouds of a point each, all zeros, with the channels, types and device of others."""
    zeros = Clouds(*(value.new_zeros(2, *value.shape[1:]) for value in like))
    return zeros._replace(visible=~zeros.visible, cloud=torch.arange(2, device=like.cloud.device))


def _get(batch: dict, key: str) -> Tensor:
    if key not in batch:
        raise KeyError(
            f"batch key '{key}' is missing; add it to Collect in data.train.transform "
            f"(the batch holds {sorted(batch)})"
        )
    return batch[key]


def _without(views: Views, scenes: list[int]) -> Views:
    clouds, num_scenes, _ = views
    keep = torch.ones(num_scenes, dtype=torch.bool, device=clouds.cloud.device)
    keep[scenes] = False
    new_index = keep.repeat(2).cumsum(0) - 1
    clouds = clouds.select(keep.repeat(2)[clouds.cloud])
    clouds = clouds._replace(cloud=new_index[clouds.cloud])
    return Views(clouds, num_scenes - len(scenes), int(clouds.visible.sum()))
