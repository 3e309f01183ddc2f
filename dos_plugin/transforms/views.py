"""Views of a scene, made in the data-loader workers: numpy only, global numpy RNG as in the host.

Rows of a scene are selected through ``index_valid_keys``, the host's list of per-point keys.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dos_plugin.host import HOST
from dos_plugin.messages import warn_counted
from dos_plugin.method.options import (
    check_configs,
    check_names,
    check_number,
    check_whole,
)
from dos_plugin.transforms.cells import ViewGridSample, is_view_grid_sample

# The host's per-point keys where a sample names none.
POINT_KEYS = ("coord", "color", "normal", "superpoint", "strength", "segment", "instance")
# Coordinates whose cells are whole numbers that an integer holds.
MOST_METRES = 1e9


def _scene(data: dict) -> str:
    return f"scene {data['name']!r}" if "name" in data else "a scene"


def point_keys(data: dict) -> list[str]:
    """Names of the per-point keys of a sample, a new list."""
    return list(dict.fromkeys(k for k in data.get("index_valid_keys", POINT_KEYS) if k in data))


def check_points(transform: str, data: dict, keys: Sequence[str]) -> None:
    """Check the per-point keys that a transform reads, ``coord`` first.

    Raises:
        KeyError: If one is missing.
        TypeError: If one is no array of numbers, or ``coord`` is not of floats.
        ValueError: If ``coord`` is not (N, 3), or another one has another number of rows.
    """
    for key in ("coord", *keys):
        if key not in data:
            first = key == "point_id"
            hint = "; put PointId first in the pipeline" if first else f", only {sorted(data)}"
            raise KeyError(f"{transform}: {_scene(data)} has no '{key}'{hint}")
        value = data[key]
        what = getattr(value, "dtype", type(value).__name__)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            raise TypeError(
                f"{transform}: '{key}' of {_scene(data)} must be an array of numbers, got {what}"
            )
        if key == "coord" and value.dtype.kind != "f":
            raise TypeError(f"{transform}: 'coord' of {_scene(data)} must be floats, got {what}")
        if key == "coord" and (value.ndim != 2 or value.shape[1] != 3):
            raise ValueError(
                f"{transform}: 'coord' of {_scene(data)} must be (N, 3), got {value.shape}"
            )
        if value.shape[:1] != data["coord"].shape[:1]:
            raise ValueError(
                f"{transform}: {_scene(data)} has {len(data['coord'])} rows of 'coord' but "
                f"{len(value) if value.ndim else 'none'} of '{key}'"
            )


class PointId:
    """Give every point of a scene a permanent id; comes first in a pipeline.

    Adds ``point_id`` (N,) int64 and enters it into ``index_valid_keys``, so that the ids follow
    their points through every selection and make matching across views exact (DOS, section 2).
    Points with NaN or infinite values are dropped; a scene with no point left becomes a single
    point at the origin, which the model leaves out of the loss. Both are counted warnings.

    Args:
        max_extent: Longest that a scene may be along an axis, metres. Of a longer one, points more
            than half of it from the median are dropped, with a counted warning. None keeps all
            points, and a single one 5 km away stops PTv3, which has 65,535 voxels along an axis.
            Views are turned and stretched: leave room for that, 2000 for voxels of 0.05 m.

    Raises:
        KeyError, TypeError, ValueError: See :func:`check_points`, of all per-point keys.
        ValueError: If ``max_extent`` is not above 0.
    """

    def __init__(self, max_extent: float | None = None):
        if max_extent is not None:
            check_number("PointId: max_extent", max_extent, "(0, inf)")
        self.max_extent = max_extent

    def __call__(self, data: dict) -> dict:
        check_points("PointId", data, point_keys(data))
        coord = data["coord"]
        keys = list(dict.fromkeys(["coord", *point_keys(data)]))
        finite = np.ones(len(coord), dtype=bool)
        for key in keys:
            if np.issubdtype(data[key].dtype, np.floating):
                good = np.isfinite(data[key])
                if not good.all():  # seldom: to look along the rows takes much longer
                    finite &= good.all(axis=tuple(range(1, good.ndim)))
        if not finite.all():
            warn_counted(
                "non-finite points",
                f"PointId: dropped {np.count_nonzero(~finite)} of {len(coord)} points of "
                f"{_scene(data)} with NaN or infinite values",
            )
            for key in keys:
                data[key] = data[key][finite]
        if self.max_extent is not None:
            self._drop_far(data, keys, self.max_extent)
        if not len(data["coord"]):
            warn_counted(
                "empty scenes", f"PointId: {_scene(data)} has no point and counts for nothing"
            )
            for key in keys:
                data[key] = np.zeros((1, *data[key].shape[1:]), dtype=data[key].dtype)
        data["point_id"] = np.arange(len(data["coord"]))
        data["index_valid_keys"] = [*keys, "point_id"]
        return data

    @staticmethod
    def _drop_far(data: dict, keys: list[str], max_extent: float) -> None:
        # Axis by axis: numpy is slow to reduce over the long axis of (n, 3).
        axes = [axis for axis in data["coord"].T if len(axis) and np.ptp(axis) > max_extent]
        if not axes:
            return
        near = np.all([np.abs(axis - np.median(axis)) <= max_extent / 2 for axis in axes], axis=0)
        warn_counted(
            "far points",
            f"PointId: dropped {np.count_nonzero(~near)} of {len(near)} points of {_scene(data)}, "
            f"{max(np.ptp(axis) for axis in axes):,.0f} m long, farther from its median than half "
            f"of max_extent={max_extent:g} m",
        )
        for key in keys:
            data[key] = data[key][near]


class Height:
    """Copy z of ``coord`` into the per-point key ``height`` (N, 1), metres.

    For features without x and y, from which short runs learn position instead of semantics.

    Raises:
        KeyError, TypeError, ValueError: See :func:`check_points`.
    """

    def __call__(self, data: dict) -> dict:
        check_points("Height", data, ())
        keys = [key for key in point_keys(data) if key != "height"]
        data["height"] = data["coord"][:, 2:3].copy()
        data["index_valid_keys"] = [*keys, "height"]
        return data


class TwoViews:
    """Two overlapping crops of a scene, each augmented by itself (DOS, section 2, step 1).

    A view holds the points nearest to a centre. The first centre is any point, the second one a
    point of the first view. Augmentation is left to the host's transforms. Every per-point key
    of a finished view appears as ``view1_<key>`` and ``view2_<key>``. The scene's own per-point
    keys go, but for one row of ``coord``, which the host's Collect walks row by row.

    Args:
        view_keys: Per-point keys that a view starts from; must hold ``coord`` and ``point_id``.
        view_scale: Range of the share of ``min(max_size, N)`` points that a view holds.
        max_size: Largest view, points.
        view_transform: Configs of host transforms. The last one to change coordinates should be a
            GridSample with ``return_grid_coord=True``: it makes ``grid_coord``, one point a cell.
            As the last of all, and without further options, it is done by an equal that is faster.

    Raises:
        ValueError: If an argument is out of range; or if a view spans too many cells for the
            backbones' space-filling curves, or has values that are not finite.
        KeyError: If a view key is missing in a sample, or the transforms made no ``grid_coord``.
        TypeError: See :func:`check_points`.
    """

    def __init__(
        self,
        view_keys: Sequence[str] = ("coord", "strength", "point_id"),
        view_scale: tuple[float, float] = (0.4, 1.0),
        max_size: int = 65536,
        view_transform: Sequence[dict] = (),
    ):
        check_names("TwoViews: view_keys", view_keys)
        missing = {"coord", "point_id"} - set(view_keys)
        if missing:
            raise ValueError(f"TwoViews: view_keys must hold {sorted(missing)}, got {view_keys}")
        if not isinstance(view_scale, list | tuple) or len(view_scale) != 2:
            raise ValueError(f"TwoViews: view_scale must be two numbers, got {view_scale!r}")
        low, high = view_scale
        check_number("TwoViews: view_scale[0]", low, "(0, 1]")
        check_number("TwoViews: view_scale[1]", high, f"[{low}, 1]")
        check_whole("TwoViews: max_size", max_size, 1)
        check_configs("TwoViews: view_transform", view_transform)
        self.view_keys = tuple(view_keys)
        self.view_scale = (low, high)
        self.max_size = max_size
        transforms = list(view_transform)
        self.grid_sample = None
        if transforms and is_view_grid_sample(transforms[-1]):
            self.grid_sample = ViewGridSample(transforms.pop())
        self.transform = HOST.Compose(transforms)

    def __call__(self, data: dict) -> dict:
        check_points("TwoViews", data, self.view_keys)
        coord = data["coord"]
        if len(coord) == 0:
            raise ValueError(f"TwoViews: 'coord' of {_scene(data)} has no point")
        first = self._crop(coord, np.random.randint(len(coord)))
        second = self._crop(coord, first[np.random.randint(len(first))])
        views = [self._view(data, rows) for rows in (first, second)]
        for key in point_keys(data):
            del data[key]
        data["coord"] = coord[:1]
        for prefix, view in zip(("view1_", "view2_"), views):
            data.update({prefix + key: view[key] for key in view["index_valid_keys"]})
        data["index_valid_keys"] = ["coord"]
        return data

    def _crop(self, coord: np.ndarray, centre: int) -> np.ndarray:
        """Rows of the points nearest to a point."""
        scale = np.random.uniform(*self.view_scale)
        size = max(1, int(scale * min(self.max_size, len(coord))))
        # Axis by axis: numpy is slow to sum over the short axis of (n, 3).
        distance = sum(np.square(x - x[centre]) for x in coord.T)
        return np.argpartition(distance, size - 1)[:size]

    def _view(self, data: dict, rows: np.ndarray) -> dict[str, Any]:
        view = {key: data[key].take(rows, axis=0) for key in self.view_keys}
        view["index_valid_keys"] = list(self.view_keys)
        view = self.transform(view)
        if not np.abs(view["coord"]).max(initial=0) < MOST_METRES:
            raise ValueError(
                f"TwoViews: 'coord' of a view of {_scene(data)} has NaN, infinite values, or some "
                f"beyond {MOST_METRES:g} m"
            )
        if self.grid_sample:
            view = self.grid_sample(view)
        if "grid_coord" not in view:
            raise KeyError(
                "TwoViews: view_transform made no 'grid_coord'; end it with "
                "dict(type='GridSample', ..., return_grid_coord=True)"
            )
        return view
