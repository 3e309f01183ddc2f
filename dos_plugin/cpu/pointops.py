"""Stand-in for the host's CUDA extension ``pointops``: neighbours, groups of them, samples.

Neighbours on a CPU through a k-d tree, elsewhere by all distances, some queries at a time.
"""

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "farthest_point_sampling",
    "grouping",
    "interpolation",
    "knn_query",
    "knn_query_and_group",
]

# The extension starts its search from this squared distance; what it does not find keeps it.
NOT_FOUND_DISTANCE = 1e5

# Distances held at a time where all are computed.
DISTANCES = 2**26


def knn_query(
    nsample: int,
    xyz: Tensor,
    offset: Tensor,
    new_xyz: Tensor | None = None,
    new_offset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Nearest rows of ``xyz`` for each row of ``new_xyz``, within the same sample.

    Args:
        nsample: neighbours per query.
        xyz: (n, 3) searched coordinates, metres.
        offset: (b,) cumulative number of searched rows.
        new_xyz: (m, 3) queries, metres; ``xyz`` itself if None.
        new_offset: (b,) cumulative number of queries; ``offset`` if ``new_xyz`` is None.

    Returns:
        Row numbers into ``xyz`` (m, nsample) int32, nearest first, and distances (m, nsample)
        float32 in metres. A sample with fewer than ``nsample`` rows is filled up with row -1.
    """
    if new_xyz is None or new_offset is None:
        new_xyz, new_offset = xyz, offset
    if xyz.device.type != "cpu":
        return _by_distance(nsample, xyz, offset, new_xyz, new_offset)
    from scipy.spatial import cKDTree

    index = np.full((len(new_xyz), nsample), -1, dtype=np.int32)
    distance = np.full((len(new_xyz), nsample), NOT_FOUND_DISTANCE, dtype=np.float32)
    points, queries = xyz.detach().cpu().numpy(), new_xyz.detach().cpu().numpy()
    first, new_first = 0, 0
    for last, new_last in zip(offset.tolist(), new_offset.tolist()):
        found = min(nsample, last - first)
        if found and new_last > new_first:
            tree = cKDTree(points[first:last])
            near, rows = tree.query(queries[new_first:new_last], k=list(range(1, found + 1)))
            index[new_first:new_last, :found] = rows + first
            distance[new_first:new_last, :found] = near
        first, new_first = last, new_last
    return torch.from_numpy(index).to(xyz.device), torch.from_numpy(distance).to(xyz.device)


def _by_distance(
    nsample: int, xyz: Tensor, offset: Tensor, new_xyz: Tensor, new_offset: Tensor
) -> tuple[Tensor, Tensor]:
    """``knn_query`` on the device of the coordinates; equal distances in any order."""
    index = torch.full((len(new_xyz), nsample), -1, dtype=torch.int32, device=xyz.device)
    distance = torch.full_like(index, NOT_FOUND_DISTANCE, dtype=torch.float32)
    first, new_first = 0, 0
    for last, new_last in zip(offset.tolist(), new_offset.tolist()):
        found = min(nsample, last - first)
        step = max(1, DISTANCES // max(1, last - first))
        for start in range(new_first, new_last if found else new_first, step):
            rows = slice(start, min(start + step, new_last))
            # Exact differences: the faster form through products loses centimetres far out.
            apart = torch.cdist(
                new_xyz[rows].detach().float(),
                xyz[first:last].detach().float(),
                compute_mode="donot_use_mm_for_euclid_dist",
            )
            near, nearest = apart.topk(found, largest=False)
            index[rows, :found] = (nearest + first).int()
            distance[rows, :found] = near
        first, new_first = last, new_last
    return index, distance


def grouping(
    idx: Tensor, feat: Tensor, xyz: Tensor, new_xyz: Tensor | None = None, with_xyz: bool = False
) -> Tensor:
    """Rows of neighbours, and where they lie from the query.

    Args:
        idx: (m, k) row numbers, -1 for none.
        feat: (n, c) values of the rows.
        xyz: (n, 3) their coordinates, metres.
        new_xyz: (m, 3) coordinates of the queries; ``xyz`` if None.
        with_xyz: whether the way from the query to the neighbour goes in front.

    Returns:
        (m, k, c), or (m, k, 3 + c) with the way; zeros where there is no neighbour.
    """
    found, rows = idx >= 0, idx.long().clamp_min(0)
    grouped = feat[rows]
    if with_xyz:
        away = xyz[rows] - (xyz if new_xyz is None else new_xyz)[:, None]
        grouped = torch.cat([away, grouped], dim=-1)
    return grouped * found[..., None]


def knn_query_and_group(
    feat: Tensor,
    xyz: Tensor,
    offset: Tensor | None = None,
    new_xyz: Tensor | None = None,
    new_offset: Tensor | None = None,
    idx: Tensor | None = None,
    nsample: int | None = None,
    with_xyz: bool = False,
) -> tuple[Tensor, Tensor]:
    """:func:`grouping` of the neighbours that :func:`knn_query` finds, unless ``idx`` has them.

    Returns:
        The groups, and the row numbers (m, nsample) of the neighbours.
    """
    if idx is None:
        assert nsample is not None and offset is not None
        idx, _ = knn_query(nsample, xyz, offset, new_xyz, new_offset)
    return grouping(idx, feat, xyz, new_xyz, with_xyz), idx


def interpolation(
    xyz: Tensor, new_xyz: Tensor, feat: Tensor, offset: Tensor, new_offset: Tensor, k: int = 3
) -> Tensor:
    """Means of the nearest rows' values, weighted by the inverse of the distance.

    Args:
        xyz: (n, 3) coordinates of the rows, metres.
        new_xyz: (m, 3) where values are wanted, metres.
        feat: (n, c) values of the rows.
        offset: (b,) cumulative number of rows.
        new_offset: (b,) cumulative number of places.
        k: rows that enter a mean.

    Returns:
        (m, c) float32.
    """
    index, distance = knn_query(k, xyz, offset, new_xyz, new_offset)
    weight = 1 / (distance + 1e-8)
    weight = weight / weight.sum(dim=1, keepdim=True)
    return (feat[index.long()].float() * weight[..., None]).sum(dim=1)


def farthest_point_sampling(xyz: Tensor, offset: Tensor, new_offset: Tensor) -> Tensor:
    """Rows that lie far from each other: the first of a sample, then always the farthest.

    Args:
        xyz: (n, 3) coordinates, metres.
        offset: (b,) cumulative number of rows.
        new_offset: (b,) cumulative number of rows that are wanted.

    Returns:
        Row numbers (``new_offset[-1]``,) int32.
    """
    chosen: list[Tensor] = []
    first, new_first = 0, 0
    for last, new_last in zip(offset.tolist(), new_offset.tolist()):
        points = xyz[first:last].detach().float()
        nearest = points.new_full((len(points),), torch.inf)
        row = torch.zeros((), dtype=torch.int64, device=xyz.device)
        for _ in range(new_last - new_first):
            chosen.append(row + first)
            nearest = torch.minimum(nearest, (points - points[row]).square().sum(dim=1))
            row = nearest.argmax()
        first, new_first = last, new_last
    if not chosen:
        return torch.zeros(0, dtype=torch.int32, device=xyz.device)
    return torch.stack(chosen).int()
