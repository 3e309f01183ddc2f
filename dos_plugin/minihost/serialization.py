"""Space-filling curves over voxel cells, by bit operations on whole columns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MAX_DEPTH = 16  # bits per axis
CODE_BITS = 63  # an int64 without its sign
ORDERS = ("z", "z-trans", "hilbert", "hilbert-trans")

# One step of bit spreading: shift left, or, keep these bits. After all of them the 16 bits of a
# number sit at every third place.
_SPREAD = (
    (16, 0x0000FF0000FF),
    (8, 0x00F00F00F00F),
    (4, 0x0C30C30C30C3),
    (2, 0x249249249249),
)


def check_grid(grid_coord: Tensor, batch_size: int) -> int:
    """Check that the cells fit into a code and return the bits per axis that they need.

    Args:
        grid_coord: Integer cells (n, 3).
        batch_size: Number of samples, whose index takes the bits above the cells.

    Raises:
        ValueError: without points, for negative cells, for cells of 65535 and more, or for more
            samples than fit above the cells.
    """
    if grid_coord.ndim != 2 or grid_coord.shape[1] != 3 or len(grid_coord) == 0:
        raise ValueError(f"grid_coord: expected shape (n > 0, 3), got {tuple(grid_coord.shape)}")
    if grid_coord.is_floating_point():
        raise ValueError(f"grid_coord: expected integer cells, got {grid_coord.dtype}")
    low, high = int(grid_coord.min()), int(grid_coord.max())
    depth = (high + 1).bit_length()
    if low < 0 or depth > MAX_DEPTH:
        raise ValueError(
            f"grid_coord: cells must lie between 0 and {2**MAX_DEPTH - 2}, got {low} to {high}; "
            "shift the cloud to its minimum or use larger voxels"
        )
    if 3 * depth + batch_size.bit_length() > CODE_BITS:
        raise ValueError(
            f"offset: {batch_size} samples do not fit into a {CODE_BITS}-bit code beside "
            f"3 x {depth} bits of grid_coord (largest cell {high})"
        )
    return depth


def z_order(cells: Tensor) -> Tensor:
    """Interleave the bits of cells (n, 3), each below 65536, to codes (n,).

    Within a triple of bits the first column is the most significant one.
    """
    spread = cells.long()
    for shift, mask in _SPREAD:
        spread = (spread | (spread << shift)) & mask
    return (spread[:, 0] << 2) | (spread[:, 1] << 1) | spread[:, 2]


def hilbert(cells: Tensor, depth: int) -> Tensor:
    """Hilbert codes (n,) int64 of cells (n, 3) in [0, 2**depth), after Skilling (2004).

    Gives the codes of ``torch_pointcloud.ops.hilbert.encode`` several times faster.
    """
    x, *others = cells.int().unbind(1)
    for bit in range(depth - 1, 0, -1):
        low = (1 << bit) - 1
        x = x ^ (-(x >> bit & 1) & low)
        for i, y in enumerate(others):
            on = -(y >> bit & 1)  # all bits set where this bit of y is
            swap = (x ^ y) & ~on & low
            others[i] = y ^ swap
            x = x ^ (swap | on & low)
    code = z_order(torch.stack([x, *others], dim=1))
    for shift in (32, 16, 8, 4, 2, 1):  # Gray code to binary
        code = code ^ (code >> shift)
    return code


@torch.no_grad()
def encode(grid_coord: Tensor, batch: Tensor, depth: int, order: str) -> Tensor:
    """Codes (n,) int64 of cells (n, 3) along one curve, the sample index in the highest bits.

    Args:
        grid_coord: Cells in [0, 2**depth).
        batch: Sample index of every point (n,) int64.
        depth: Bits per axis.
        order: z, hilbert, or one of them with x and y exchanged (``-trans``).

    Raises:
        ValueError: for an unknown order.
    """
    if order not in ORDERS:
        raise ValueError(f"order: expected some of {ORDERS}, got {order!r}")
    cells = grid_coord[:, [1, 0, 2]] if order.endswith("-trans") else grid_coord
    code = z_order(cells) if order.startswith("z") else hilbert(cells, depth)
    return (batch << 3 * depth) | code


def sort_codes(code: Tensor) -> tuple[Tensor, Tensor]:
    """The permutation that sorts every row of codes (k, n), and its inverse, both (k, n)."""
    order = torch.argsort(code, dim=1)
    rows = torch.arange(code.shape[1], device=code.device).expand_as(order)
    return order, torch.empty_like(order).scatter_(1, order, rows)


def shuffle_curves(code: Tensor, order: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Permute the k curves (rows) of all three alike, with torch's global random generator."""
    perm = torch.randperm(len(code)).to(code.device)
    return code[perm], order[perm], inverse[perm]


@torch.no_grad()
def serialize(
    grid_coord: Tensor, batch: Tensor, depth: int, orders: Sequence[str], shuffle: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, sorting permutations and their inverses of k curves, each (k, n) int64.

    Args:
        grid_coord: Cells (n, 3) in [0, 2**depth).
        batch: Sample index (n,) int64.
        depth: Bits per axis.
        orders: Names of the k curves.
        shuffle: Whether to permute the curves.
    """
    code = torch.stack([encode(grid_coord, batch, depth, order) for order in orders])
    order, inverse = sort_codes(code)
    return shuffle_curves(code, order, inverse) if shuffle else (code, order, inverse)
