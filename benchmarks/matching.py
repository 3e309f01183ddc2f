"""Matching two views by permanent point ids, beside nearest neighbours as the host matches them.

Queries are the visible points of one view of each scan, what the student sees. The host's Sonata
takes the nearest neighbour in the coordinates before augmentation and keeps it below a distance;
here through scipy's k-d tree a cloud, and the host's operator `pointops.knn_query` on a GPU that
has it. Two levels: `points`, searched in the other view; and `rows`, the two matchings of a
training step, in the same view and in the other one, of rows as a backbone pools the points to
4 x the grid (neighbours of mean coordinates, ids through the points of the rows). A match is wrong
if both ends show no common point; `missed` is the share of those queries of which the searched view
does show a point, but which got no match. Medians.
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

from dos_plugin.host import HOST
from dos_plugin.method.matching import find_points, match_rows
from dos_plugin.register import COMPONENTS
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


class Views(NamedTuple):
    """What is matched."""

    student: View  # the visible points of view 1
    own: View  # view 1
    other: View  # view 2
    seen: Tensor  # (N,) int64, the student's points in ``own``

    def to(self, device: str) -> "Views":
        student, own, other = (View(*(x.to(device) for x in view)) for view in self[:3])
        return Views(student, own, other, self.seen.to(device))

    def targets(self, level: str) -> list[View]:
        """The views that the student's points or rows are searched in."""
        return [self.other] if level == "points" else [self.own, self.other]


def make_views(clouds: int, columns: int, grid_size: float, seed: int) -> Views:
    """Two views of each of some synthetic streets."""
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
    parts: dict[str, list[dict]] = {"student": [], "own": [], "other": []}
    visible = []
    for number in range(clouds):
        street = generate_scan([seed, number], Sensor(columns=columns))
        coord = street["coord"]
        data = classes["PointId"]()({"coord": coord, "strength": street["strength"]})
        data = classes["BlockMask"]()(two_views(thin(data)))
        visible.append(data["view1_visible"])
        for part, view in zip(parts, ("view1", "view1", "view2")):
            keep = visible[-1] if part == "student" else slice(None)
            ids = data[f"{view}_point_id"][keep]
            cells = data[f"{view}_grid_coord"][keep]
            parts[part].append({"ids": ids, "cells": cells, "origin": coord[ids]})
    seen = torch.from_numpy(np.flatnonzero(np.concatenate(visible)))
    return Views(pack(parts["student"]), pack(parts["own"]), pack(parts["other"]), seen)


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


Matches = list[tuple[Tensor, Tensor]]  # for each target: matched points or rows, here and there


def by_ids(views: Views, level: str) -> Matches:
    """As DOS matches."""
    student, own, other, seen = views
    found = find_points(student.point_id, student.cloud, other.point_id, other.cloud)
    if level == "points":
        return [pairs(found)]
    rows = (student.row, len(student.row_cloud))
    return [pairs(match_rows(*rows, seen, own.row)), pairs(match_rows(*rows, found, other.row))]


def pairs(found: Tensor) -> tuple[Tensor, Tensor]:
    """Where ``found`` is not -1, and its values there."""
    matched = (found >= 0).nonzero().squeeze(1)
    return matched, found[matched]


def by_neighbours(search: Callable, views: Views, level: str, radius: float) -> Matches:
    """As the host's Sonata matches, with this search."""
    return [search(views.student, target, level, radius) for target in views.targets(level)]


def by_kdtree(a: View, b: View, level: str, radius: float) -> tuple[Tensor, Tensor]:
    """Nearest neighbours below ``radius`` metres, a k-d tree for each cloud."""
    here, there = [], []
    start_a = start_b = 0
    for of_a, of_b in zip(*(coordinates(view, level) for view in (a, b))):
        distance, nearest = cKDTree(of_b).query(of_a, distance_upper_bound=radius)
        good = np.flatnonzero(distance < radius)
        here.append(good + start_a)
        there.append(nearest[good] + start_b)
        start_a, start_b = start_a + len(of_a), start_b + len(of_b)
    return torch.from_numpy(np.concatenate(here)), torch.from_numpy(np.concatenate(there))


def coordinates(view: View, level: str) -> list[np.ndarray]:
    """Coordinates of each cloud."""
    coord, cloud = of_level(view, level)
    return [part.numpy() for part in coord.tensor_split(torch.bincount(cloud).cumsum(0)[:-1])]


def of_level(view: View, level: str) -> tuple[Tensor, Tensor]:
    """Coordinates before augmentation, and clouds."""
    if level == "rows":
        return view.row_origin, view.row_cloud
    return view.origin, view.cloud


def by_pointops(a: View, b: View, level: str, radius: float) -> tuple[Tensor, Tensor]:
    """Nearest neighbours below ``radius`` metres by the host's CUDA operator."""
    import pointops

    (coord_a, cloud_a), (coord_b, cloud_b) = (of_level(view, level) for view in (a, b))
    offset_a, offset_b = (torch.bincount(c).cumsum(0).int() for c in (cloud_a, cloud_b))
    nearest, distance = pointops.knn_query(1, coord_b, offset_b, coord_a, offset_a)
    good = (distance.squeeze(1) < radius).nonzero().squeeze(1)
    return good, nearest[good, 0].long()


class Truth:
    """Which points or rows of two views show a common point, from the ids, by numpy alone."""

    def __init__(self, a: View, b: View, level: str):
        keys_a, keys_b = (view.cloud.numpy() * 2**40 + view.point_id.numpy() for view in (a, b))
        _, at_a, at_b = np.intersect1d(keys_a, keys_b, return_indices=True)
        if level == "rows":
            at_a, at_b = a.row.numpy()[at_a], b.row.numpy()[at_b]
        self.queries = len(of_level(a, level)[1])
        self.shared = np.unique(at_a)
        self.pairs = np.unique(at_a * 2**32 + at_b)

    def count(self, match: tuple[Tensor, Tensor]) -> np.ndarray:
        """Numbers of queries, of matches, of wrong ones, of matchable queries, of missed ones."""
        here, there = (side.cpu().numpy() for side in match)
        wrong = ~np.isin(here * 2**32 + there, self.pairs)
        missed = ~np.isin(self.shared, here)
        return np.array([self.queries, len(here), wrong.sum(), len(self.shared), missed.sum()])


def judge(truths: list[Truth], matches: Matches) -> dict[str, float]:
    """Fractions: matched of all queries, wrong of the matches, missed of the matchable."""
    counts = sum(truth.count(match) for truth, match in zip(truths, matches))
    queries, matched, wrong, shared, missed = map(int, np.asarray(counts))
    return {
        "matched": matched / queries,
        "wrong": wrong / max(1, matched),
        "missed": missed / max(1, shared),
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
    on_device = views.to(args.device)
    has_operator = args.device != "cpu" and importlib.util.find_spec("pointops") is not None
    if not has_operator:
        print("no pointops on a GPU here: nearest neighbours by the k-d tree only")

    rows: list[dict[str, Any]] = []
    for level in LEVELS:
        truths = [Truth(views.student, target, level) for target in views.targets(level)]
        sides: dict[str, Callable] = {
            "ids (ours)": partial(by_ids, on_device, level),
            "k-d tree": partial(by_neighbours, by_kdtree, views, level, args.radius),
        }
        if has_operator:
            sides["pointops"] = partial(by_neighbours, by_pointops, on_device, level, args.radius)
        times = common.alternate(sides, args.repeats, args.warmup)
        for name, side in sides.items():
            taken = common.median(times[name])
            rows.append(
                {
                    "level": level,
                    "side": name,
                    "queries": sum(truth.queries for truth in truths),
                    "ms": 1000 * taken,
                    "ours_is_faster": taken / common.median(times["ids (ours)"]),
                    **judge(truths, side()),
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
