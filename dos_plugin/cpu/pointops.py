"""Stand-in for the host's CUDA extension ``pointops``: nearest neighbours.

On a CPU through a k-d tree, elsewhere by all distances, some queries at a time.
"""

import numpy as np
import torch
from torch import Tensor

__all__ = ["knn_query"]

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
