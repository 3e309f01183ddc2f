"""Matching two views by permanent point ids, beside nearest neighbours as the host matches them.

Queries are the visible points of one view of each scan (what the student sees), searched in the
other view. The host's Sonata takes the nearest neighbour in the coordinates before augmentation and
keeps it below a distance; here through scipy's k-d tree a cloud, and the host's operator
`pointops.knn_query` on a GPU that has it. Two levels: `points` of the views, and `rows`, as a
backbone pools them to 4 x the grid, which is what losses match (neighbours of mean coordinates,
ids through the points of the rows). A match is wrong if both ends show no common point; `missed`
is the share of the queries that do occur in the other view, but got no match. Medians.
"""

import importlib.util
import os
import random
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

import common
from views import AUGMENTATIONS, MAX_SIZE, SCALE

os.environ.setdefault("DOS_HOST", "minihost")

from dos_plugin.components import COMPONENTS
from dos_plugin.host import HOST
from dos_plugin.method.matching import find_points, match_rows
from dos_plugin.scenes.sensor import Sensor, generate_scan

LEVELS = ("points", "rows")
POOL = 4  # edge of a row's cell, in voxels


class View(NamedTuple):
    """Some points of one view of every scan, packed."""

    point_id: Tensor  # (N,) int64
    cloud: Tensor  # (N,) int64
    origin: Tensor  # (N, 3) float32, metres, before augmentation
    row: Tensor  # (N,) int64, where pooling takes the point
    row_cloud: Tensor  # (R,) int64
    row_origin: Tensor  # (R, 3) float32, mean over the row's points


def make_views(clouds: int, columns: int, grid_size: float, seed: int) -> tuple[View, View]:
    """Visible points of view 1 and all points of view 2 of synthetic streets."""
    grid = dict(type="GridSample", grid_size=grid_size, mode="train")
    classes = COMPONENTS["TRANSFORMS"]
    thin = HOST.TRANSFORMS.build(grid)
    two_views = classes["TwoViews"](
        view_scale=SCALE,
        max_size=MAX_SIZE,
        view_transform=[*AUGMENTATIONS, {**grid, "return_grid_coord": True}],
    )
    np.random.seed(seed)
    random.seed(seed)
    parts: tuple[list[dict], list[dict]] = ([], [])
    for number in range(clouds):
        street = generate_scan([seed, number], Sensor(columns=columns))
        coord = street["coord"]
        data = classes["PointId"]()({"coord": coord, "strength": street["strength"]})
        data = classes["BlockMask"]()(two_views(thin(data)))
        for view, part in zip(("view1", "view2"), parts):
            keep = data["view1_visible"] if view == "view1" else slice(None)
            ids = data[f"{view}_point_id"][keep]
            cells = data[f"{view}_grid_coord"][keep]
            part.append({"ids": ids, "cells": cells, "origin": coord[ids]})
    return pack(parts[0]), pack(parts[1])


def pack(parts: list[dict]) -> View:
    """One view of all scans, pooled."""
    cloud = np.repeat(np.arange(len(parts)), [len(part["ids"]) for part in parts])
    ids, cells, origin = (
        np.concatenate([part[key] for part in parts]) for key in ("ids", "cells", "origin")
    )
    pooled, row = np.unique(np.c_[cloud, cells // POOL], axis=0, return_inverse=True)
    row = row.reshape(-1)
    sums = [np.bincount(row, weights=axis) for axis in origin.T]
    mean = (np.stack(sums, axis=1) / np.bincount(row)[:, None]).astype(np.float32)
    return View(*map(torch.from_numpy, (ids, cloud, origin, row, pooled[:, 0].copy(), mean)))


def by_ids(a: View, b: View, rows: bool) -> tuple[Tensor, Tensor]:
    """Matched points or rows of ``a`` and ``b``, as DOS finds them."""
    found = find_points(a.point_id, a.cloud, b.point_id, b.cloud)
    if rows:
        found = match_rows(a.row, len(a.row_cloud), found, b.row)
    matched = (found >= 0).nonzero().squeeze(1)
    return matched, found[matched]


def by_kdtree(a: View, b: View, rows: bool, radius: float) -> tuple[Tensor, Tensor]:
    """Nearest neighbours below ``radius`` metres, a k-d tree for each cloud."""
    here, there = [], []
    start_a = start_b = 0
    for of_a, of_b in zip(*(coordinates(view, rows) for view in (a, b))):
        distance, nearest = cKDTree(of_b).query(of_a, distance_upper_bound=radius)
        good = np.flatnonzero(distance < radius)
        here.append(good + start_a)
        there.append(nearest[good] + start_b)
        start_a, start_b = start_a + len(of_a), start_b + len(of_b)
    return torch.from_numpy(np.concatenate(here)), torch.from_numpy(np.concatenate(there))


def coordinates(view: View, rows: bool) -> list[np.ndarray]:
    """Coordinates of each cloud."""
    coord, cloud = (view.row_origin, view.row_cloud) if rows else (view.origin, view.cloud)
    ends = torch.bincount(cloud).cumsum(0)[:-1]
    return [part.numpy() for part in coord.tensor_split(ends.cpu())]


def by_pointops(a: View, b: View, rows: bool, radius: float) -> tuple[Tensor, Tensor]:
    """Nearest neighbours below ``radius`` metres by the host's CUDA operator."""
    import pointops

    (coord_a, cloud_a), (coord_b, cloud_b) = (
        (view.row_origin, view.row_cloud) if rows else (view.origin, view.cloud) for view in (a, b)
    )
    offset_a, offset_b = (torch.bincount(c).cumsum(0).int() for c in (cloud_a, cloud_b))
    nearest, distance = pointops.knn_query(1, coord_b, offset_b, coord_a, offset_a)
    good = (distance.squeeze(1) < radius).nonzero().squeeze(1)
    return good, nearest[good, 0].long()


class Truth:
    """Which points or rows of two views show a common point, from the ids, by numpy alone."""

    def __init__(self, a: View, b: View, rows: bool):
        keys_a, keys_b = (view.cloud.numpy() * 2**40 + view.point_id.numpy() for view in (a, b))
        _, at_a, at_b = np.intersect1d(keys_a, keys_b, return_indices=True)
        if rows:
            at_a, at_b = a.row.numpy()[at_a], b.row.numpy()[at_b]
        self.queries = len(a.row_cloud) if rows else len(a.cloud)
        self.shared = np.unique(at_a)
        self.pairs = np.unique(at_a * 2**32 + at_b)

    def judge(self, match: tuple[Tensor, Tensor]) -> dict[str, float]:
        """Fractions: matched of all queries, wrong of the matches, missed of the matchable."""
        here, there = (side.cpu().numpy() for side in match)
        right = np.isin(here * 2**32 + there, self.pairs)
        return {
            "matched": len(here) / self.queries,
            "wrong": float(np.mean(~right)) if len(here) else 0.0,
            "missed": float(np.mean(~np.isin(self.shared, here))) if len(self.shared) else 0.0,
        }


def main() -> None:
    """Measure, print, write."""
    options = common.parser(__doc__)
    options.add_argument("--clouds", type=int, default=4, help="scans in a batch")
    options.add_argument("--columns", type=int, default=4000, help="of the synthetic scans")
    options.add_argument("--grid-size", type=float, default=0.05, help="metres")
    options.add_argument("--radius", type=float, default=0.32, help="metres, as the host's Sonata")
    args = options.parse_args()

    views = make_views(args.clouds, args.columns, args.grid_size, args.seed)
    a, b = (View(*(tensor.to(args.device) for tensor in view)) for view in views)
    has_operator = args.device != "cpu" and importlib.util.find_spec("pointops") is not None
    if not has_operator:
        print("no pointops on a GPU here: nearest neighbours by the k-d tree only")

    rows: list[dict[str, Any]] = []
    for level in LEVELS:
        pooled = level == "rows"
        truth = Truth(*views, pooled)
        sides: dict[str, Callable] = {
            "ids (ours)": partial(by_ids, a, b, pooled),
            "k-d tree": partial(by_kdtree, *views, pooled, args.radius),
        }
        if has_operator:
            sides["pointops"] = partial(by_pointops, a, b, pooled, args.radius)
        times = common.alternate(sides, args.repeats, args.warmup)
        for name, side in sides.items():
            taken = common.median(times[name])
            rows.append(
                {
                    "level": level,
                    "side": name,
                    "queries": truth.queries,
                    "ms": 1000 * taken,
                    "ours_is_faster": taken / common.median(times["ids (ours)"]),
                    **truth.judge(side()),
                }
            )
    common.print_table(rows)
    found = {(row["level"], row["side"]): row for row in rows}
    summary = {
        "speedup_vs_kdtree": found["points", "k-d tree"]["ours_is_faster"],
        "speedup_vs_kdtree_rows": found["rows", "k-d tree"]["ours_is_faster"],
        "speedup_vs_pointops": found.get(("points", "pointops"), {}).get("ours_is_faster"),
        "wrong_fraction": max(found[level, "ids (ours)"]["wrong"] for level in LEVELS),
        "missed_fraction": max(found[level, "ids (ours)"]["missed"] for level in LEVELS),
        "kdtree_wrong_fraction": found["points", "k-d tree"]["wrong"],
        "kdtree_wrong_fraction_rows": found["rows", "k-d tree"]["wrong"],
    }
    common.write_json(args.json, rows, summary)


if __name__ == "__main__":
    main()
