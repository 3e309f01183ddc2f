"""A collated batch of two views as one packed batch of clouds, checked."""

from typing import NamedTuple

import torch
from torch import Tensor

from .warn import warn_counted

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
        return torch.bincount(self.cloud, minlength=num_clouds).cumsum(0)


class Views(NamedTuple):
    """Both views of B scenes: clouds 0..B-1 are the first views, B..2B-1 the second ones."""

    clouds: Clouds
    num_scenes: int

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
    num_scenes = 0
    for view in VIEWS:
        offset = _get(batch, f"{view}_offset")
        values = {key: _get(batch, f"{view}_{key}") for key in KEYS}
        for key, value in values.items():
            if len(value) != len(values["coord"]):
                raise ValueError(
                    f"batch key '{view}_{key}' has {len(value)} rows, '{view}_coord' has "
                    f"{len(values['coord'])}"
                )
        counts = torch.diff(offset, prepend=offset.new_zeros(1))
        if int(offset[-1]) != len(values["coord"]):
            raise ValueError(
                f"batch key '{view}_offset' ends with {int(offset[-1])}, but '{view}_coord' has "
                f"{len(values['coord'])} rows"
            )
        num_scenes = len(offset)
        cloud = torch.arange(num_scenes, device=offset.device).repeat_interleave(counts)
        parts.append(Clouds(**values, cloud=cloud + num_scenes * len(parts)))
    clouds = Clouds(*(torch.cat(values) for values in zip(*parts)))
    return _drop_small(Views(clouds, num_scenes), min_visible, batch.get("name"))


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


def _get(batch: dict, key: str) -> Tensor:
    if key not in batch:
        raise KeyError(
            f"batch key '{key}' is missing; add it to Collect in data.train.transform "
            f"(the batch holds {sorted(batch)})"
        )
    return batch[key]


def _drop_small(views: Views, min_visible: int, names: list[str] | None) -> Views:
    clouds, num_scenes = views
    visible = torch.bincount(clouds.cloud[clouds.visible], minlength=2 * num_scenes)
    keep = (visible.view(2, num_scenes) >= min_visible).all(dim=0)
    if bool(keep.all()):
        return views
    dropped = (~keep).nonzero().flatten().tolist()
    label = [names[i] for i in dropped] if names else dropped
    warn_counted(
        "scenes left out",
        f"DOS: scene(s) {label} of a batch have fewer than {min_visible} visible points in a "
        "view and are left out of this step",
    )
    new_index = keep.repeat(2).cumsum(0) - 1
    clouds = clouds.select(keep.repeat(2)[clouds.cloud])
    return Views(clouds._replace(cloud=new_index[clouds.cloud]), int(keep.sum()))
