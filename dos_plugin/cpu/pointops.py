"""Stand-in for the host's CUDA extension ``pointops``: nearest neighbours through a k-d tree."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["knn_query"]

# The extension starts its search from this squared distance; what it does not find keeps it.
NOT_FOUND_DISTANCE = 1e5


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
    from scipy.spatial import cKDTree

    if new_xyz is None or new_offset is None:
        new_xyz, new_offset = xyz, offset
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
