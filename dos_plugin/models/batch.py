"""A collated batch of two views as one packed batch of clouds, checked."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dos_plugin.messages import some, warn_counted
from dos_plugin.method.matching import ID_BITS

VIEWS = ("view1", "view2")
# Of each per-point key its columns, None for any number of them, and its type.
KEYS: dict[str, tuple[tuple[int | None, ...], torch.dtype]] = {
    "coord": ((3,), torch.float32),
    "grid_coord": ((3,), torch.int64),
    "feat": ((None,), torch.float32),
    "point_id": ((), torch.int64),
    "visible": ((), torch.bool),
}


class Clouds(NamedTuple):
    """N points of C clouds, points of a cloud contiguous."""

    coord: Tensor  # (N, 3) float32, metres
    grid_coord: Tensor  # (N, 3) int64, cells of the cloud's view
    feat: Tensor  # (N, channels) float32
    point_id: Tensor  # (N,) int64, permanent within the scene
    visible: Tensor  # (N,) bool, seen by the student
    cloud: Tensor  # (N,) int64
    # What else the backbone reads: tensors of N rows, and what holds for the whole batch.
    extra: Mapping[str, Any] = MappingProxyType({})

    def each(self, change: Callable[[Tensor], Tensor]) -> "Clouds":
        """The clouds with a change made to each tensor."""
        tensors = {k: change(v) for k, v in self._asdict().items() if k != "extra"}
        extra = {k: change(v) if isinstance(v, Tensor) else v for k, v in self.extra.items()}
        return Clouds(**tensors, extra=extra)

    def select(self, index: Tensor) -> "Clouds":
        """The points of an index or a boolean mask."""
        return self.each(lambda value: value[index])

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


def read_views(batch: dict, min_visible: int, backbone_keys: Sequence[str] = ()) -> Views:
    """Read and check the views of a batch; leave out scenes that are too small to learn from.

    Args:
        batch: ``view1_coord``, ``view1_grid_coord``, ``view1_feat``, ``view1_offset``,
            ``view1_point_id``, ``view1_visible`` and the same of ``view2``.
        min_visible: Scenes with fewer visible points in a view are left out, and so are those with
            NaN or infinite values; both with a counted warning.
        backbone_keys: What else the backbone reads: ``normal`` is ``view1_normal`` and
            ``view2_normal`` of all points, or else what :func:`whole_batch` makes of ``normal``.

    Returns:
        The views of the scenes that remain, possibly none.

    Raises:
        KeyError: If a key is missing; names it.
        TypeError: If a value is no tensor; names the key.
        ValueError: If a per-point key has another shape, type or number of rows than it should,
            cells or ids below 0 (or ids of 2**40 and more); or if offsets fall or do not end with
            the number of points. Names the key.
    """
    parts: list[Clouds] = []
    ends: list[Tensor] = []
    faults: dict[str, Tensor] = {}
    for view in VIEWS:
        offset = _read(batch, f"{view}_offset", (), torch.int64)
        values = {key: _read(batch, f"{view}_{key}", *KEYS[key]) for key in KEYS}
        extra = {
            key: _get(batch, f"{view}_{key}")
            for key in backbone_keys
            if f"{VIEWS[0]}_{key}" in batch
        }
        num_points = len(values["coord"])
        for key, value in {**values, **extra}.items():
            like = {**parts[0]._asdict(), **parts[0].extra}[key] if parts else value
            if value.shape[1:] != like.shape[1:]:
                raise ValueError(
                    f"batch key '{view}_{key}' has {value.shape[1]} columns, '{VIEWS[0]}_{key}' "
                    f"has {like.shape[1]}"
                )
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
        parts.append(Clouds(**values, cloud=cloud, extra=extra))
        seen = torch.nn.functional.pad(values["visible"].cumsum(0), (1, 0))
        odd = ~(values["coord"].isfinite().all(1) & values["feat"].isfinite().all(1))
        bad = torch.nn.functional.pad(odd.cumsum(0), (1, 0))
        last = offset.clamp(0, num_points)
        ends += [offset, seen[last], bad[last]]
        ids, cells = values["point_id"], values["grid_coord"]
        faults[f"'{view}_grid_coord' holds cells below 0"] = (cells < 0).any()
        outside = (ids < 0) | (ids >= 2**ID_BITS)
        faults[f"'{view}_point_id' holds ids outside [0, 2**{ID_BITS})"] = outside.any()
    counts = torch.cat([*ends, torch.stack(list(faults.values()))]).tolist()  # waits for the device
    scenes = len(ends[0])
    offset1, seen1, bad1, offset2, seen2, bad2 = (
        counts[i * scenes : (i + 1) * scenes] for i in range(6)
    )
    for view, part, end in zip(VIEWS, parts, (offset1, offset2)):
        if any(a > b for a, b in zip([0, *end], end)):
            raise ValueError(
                f"batch key '{view}_offset' must be cumulative counts of points, got {end}"
            )
        if end[-1] != len(part.coord):
            raise ValueError(
                f"batch key '{view}_offset' ends with {end[-1]}, but '{view}_coord' has "
                f"{len(part.coord)} rows"
            )
    names = batch.get("name") or ()
    for fault, there in zip(faults, counts[6 * scenes :]):
        if there:
            raise ValueError(f"batch key {fault}" + (f" in {some(names)}" if names else ""))
    extra = {key: torch.cat([part.extra[key] for part in parts]) for key in parts[0].extra}
    for key in backbone_keys:
        if key not in extra:
            extra[key] = whole_batch(batch, key)
    both = {key: torch.cat([getattr(part, key) for part in parts]) for key in (*KEYS, "cloud")}
    clouds = Clouds(**both, extra=extra)
    views = Views(clouds, num_scenes=len(offset1), num_visible=seen1[-1] + seen2[-1])
    cumulative = (seen1, seen2, bad1, bad2)
    per_scene = [[a - b for a, b in zip(counts, [0, *counts])] for counts in cumulative]
    left_out = {
        f"have fewer than {min_visible} visible points in a view": [
            scene for scene, (a, b, *_) in enumerate(zip(*per_scene)) if min(a, b) < min_visible
        ],
        "hold NaN or infinite coordinates or features": [
            scene for scene, (*_, a, b) in enumerate(zip(*per_scene)) if a or b
        ],
    }
    for why, found in left_out.items():
        if found:
            warn_counted(
                "scenes left out",
                f"DOS: scene(s) {[names[i] for i in found] if len(names) == scenes else found} of "
                f"a batch {why} and are left out of this step",
            )
    left = sorted({scene for found in left_out.values() for scene in found})
    return _without(views, left) if left else views


def jitter_masked(clouds: Clouds, sigma: float, batch: dict) -> Clouds:
    """Move points that are not visible, and the grid cells they lie in (DOS ablation).

    Args:
        clouds: Packed points.
        sigma: Standard deviation of the noise, metres; it is clipped at twice that.
        batch: Holds ``grid_size``, the edge of a grid cell, metres.

    Raises:
        KeyError: If ``grid_size`` is missing.
        ValueError: If it is empty.
    """
    sizes = _get(batch, "grid_size").flatten()
    if not len(sizes):
        raise ValueError("batch key 'grid_size' is empty, expected the edge of a grid cell")
    grid_size = sizes[0].to(clouds.coord.dtype)
    noise = (torch.randn_like(clouds.coord) * sigma).clamp_(-2 * sigma, 2 * sigma)
    coord = torch.where(clouds.visible[:, None], clouds.coord, clouds.coord + noise)
    shift = torch.floor(coord / grid_size) - torch.floor(clouds.coord / grid_size)
    grid_coord = (clouds.grid_coord + shift.long()).clamp_min_(0)
    return clouds._replace(coord=coord, grid_coord=grid_coord)


def one_point_clouds(like: Clouds) -> Clouds:
    """Two clouds of a point each, zeros but for the cell, in channels, types, device as others.

    The cell is far from the corner: sparse convolutions halve the room up to it several times.
    """
    zeros = like.each(lambda value: value.new_zeros(2, *value.shape[1:]))
    return zeros._replace(
        grid_coord=zeros.grid_coord + 255,
        visible=~zeros.visible,
        cloud=torch.arange(2, device=like.cloud.device),
    )


def whole_batch(batch: Mapping[str, Any], key: str) -> Any:
    """What a backbone reads once for a batch, such as ``condition``, the kind of its scenes.

    Returns:
        A tensor as it is; of a name for each scene a list of one, since the host's backbones look
        at the first alone.

    Raises:
        KeyError: If the key is missing; names it.
        ValueError: If the scenes have different names.
    """
    if key not in batch:
        raise KeyError(
            f"batch key '{key}' is missing, which model.backbone_keys asks for; add it to Collect "
            f"in data.train.transform (the batch holds {sorted(batch)})"
        )
    value = batch[key]
    if not isinstance(value, list | tuple):
        return value
    kinds = list(dict.fromkeys(value))
    if len(kinds) != 1:
        raise ValueError(
            f"batch key '{key}' holds {some(kinds)}, expected the same for all scenes of a batch: "
            "a backbone takes one for all"
        )
    return kinds


def _read(batch: dict, key: str, columns: tuple[int | None, ...], dtype: torch.dtype) -> Tensor:
    """A per-point key, or an offset, in its type; see :func:`read_views` for the errors."""
    value = _get(batch, key)
    shape = tuple(value.shape)
    fits = len(shape) == 1 + len(columns) and all(
        want in (None, got) for want, got in zip(columns, shape[1:])
    )
    if not fits or (key.endswith("_offset") and not shape[0]):
        wanted = ", ".join(["N", *("C" if want is None else str(want) for want in columns)])
        raise ValueError(f"batch key '{key}' must have shape ({wanted}), got {shape}")
    alike = (
        value.dtype.is_floating_point == dtype.is_floating_point
        and not value.dtype.is_complex
        and (value.dtype is torch.bool) == (dtype is torch.bool)
    )
    if not alike:
        raise ValueError(f"batch key '{key}' must be {dtype}, got {value.dtype}")
    return value.to(dtype)


def _get(batch: dict, key: str) -> Tensor:
    if key not in batch:
        raise KeyError(
            f"batch key '{key}' is missing; add it to Collect in data.train.transform "
            f"(the batch holds {sorted(batch)})"
        )
    if not isinstance(batch[key], Tensor):
        raise TypeError(f"batch key '{key}' must be a tensor, got {type(batch[key]).__name__}")
    return batch[key]


def _without(views: Views, scenes: list[int]) -> Views:
    clouds, num_scenes, _ = views
    keep = torch.ones(num_scenes, dtype=torch.bool, device=clouds.cloud.device)
    keep[scenes] = False
    new_index = keep.repeat(2).cumsum(0) - 1
    clouds = clouds.select(keep.repeat(2)[clouds.cloud])
    clouds = clouds._replace(cloud=new_index[clouds.cloud])
    return Views(clouds, num_scenes - len(scenes), int(clouds.visible.sum()))
