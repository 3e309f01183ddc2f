"""How dense scans are, where their points lie, and what grid and mask block sizes mean for them."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from dos_plugin.ingest.scan import extent_of, longest, tell_long

NEAR = (3.0, 20.0)  # metres from the origin, for the commonest height; nearer is the vehicle
BIN = 0.1  # metres, of heights
NEIGHBOURS = [shift for shift in product((-1, 0, 1), repeat=3) if any(shift)]


@dataclass
class Density:
    """Means over scans, for one grid size.

    Attributes:
        grid_size: edge of a voxel, metres.
        voxels: occupied voxels of a scan.
        points_per_voxel: points in an occupied voxel.
        alone: share of voxels none of whose 26 neighbours is occupied.
        voxels_per_block: occupied voxels in an occupied mask block.
    """

    grid_size: float
    voxels: float
    points_per_voxel: float
    alone: float
    voxels_per_block: float


def find_scenes(root: Path, split: str, count: int) -> list[Path]:
    """``coord.npy`` of at most ``count`` scenes of a split, evenly spread.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted((root / split).rglob("coord.npy"))
    if not found:
        raise FileNotFoundError(f"DATA_ROOT: there is no scene {root / split}/<name>/coord.npy")
    picked = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [found[index] for index in picked]


def cells_of(coord: np.ndarray, size: float) -> np.ndarray:
    """Occupied cells (M, 3) int64 of points (N, 3), sorted."""
    return np.unique(np.floor(coord / size).astype(np.int64), axis=0)


def share_alone(cells: np.ndarray) -> float:
    """Share of cells (M, 3) that have no other one around them."""
    cells = cells - cells.min(axis=0) + 1
    shape = cells.max(axis=0) + 2
    numbers = np.ravel_multi_index(cells.T, shape)
    accompanied = np.zeros(len(cells), bool)
    for shift in NEIGHBOURS:
        accompanied |= np.isin(np.ravel_multi_index((cells + shift).T, shape), numbers)
    return float(1 - accompanied.mean())


def measure(coords: Sequence[np.ndarray], grid_size: float, block_size: float) -> Density:
    """Densities of scans, each (N, 3), metres."""
    cells = [cells_of(coord, grid_size) for coord in coords]
    blocks = [len(cells_of((c + 0.5) * grid_size, block_size)) for c in cells]
    voxels = np.array([len(c) for c in cells])
    points = np.array([len(coord) for coord in coords])
    return Density(
        grid_size=grid_size,
        voxels=float(voxels.mean()),
        points_per_voxel=float(points.sum() / voxels.sum()),
        alone=float(np.mean([share_alone(c) for c in cells])),
        voxels_per_block=float(voxels.sum() / sum(blocks)),
    )


def commonest_height(coords: Sequence[np.ndarray]) -> float | None:
    """Height at which most points near the origin lie, metres: the ground of outdoor scans."""
    points = np.concatenate(coords)
    distance = np.hypot(points[:, 0], points[:, 1])
    all_heights = points[(NEAR[0] < distance) & (distance < NEAR[1]), 2]
    if not len(all_heights):
        return None
    values, counts = np.unique(np.floor(all_heights / BIN).astype(int), return_counts=True)
    return float((values[counts.argmax()] + 0.5) * BIN)


EXAMPLES = """examples:
  dos-plugin density data/mine --grid-size 0.05 0.1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dos-plugin density`` to a parser."""
    parser.epilog = EXAMPLES
    parser.add_argument("root", metavar="DATA_ROOT", help="with scenes, as ingest writes them")
    parser.add_argument("--split", default="train", help="folder below DATA_ROOT")
    parser.add_argument(
        "--grid-size",
        type=float,
        nargs="+",
        default=[0.02, 0.05, 0.1, 0.2],
        metavar="METRES",
        help="edges of voxels",
    )
    parser.add_argument(
        "--block-size", type=float, default=1.0, metavar="METRES", help="edge of mask blocks"
    )
    parser.add_argument("--scans", type=int, default=20, metavar="N", help="at most so many")


def main(args: argparse.Namespace) -> int:
    """Print the table."""
    for size in (*args.grid_size, args.block_size):
        if not 0 < size < np.inf:
            raise ValueError(f"--grid-size, --block-size: {size}, expected a number above 0")
    if args.scans < 1:
        raise ValueError(f"--scans: {args.scans}, expected 1 or more")
    scenes = find_scenes(Path(args.root), args.split, args.scans)
    coords = [np.load(path) for path in scenes]
    _tell_frame(coords)
    for scene, coord in zip(scenes, coords):
        extent = extent_of(coord)
        too_fine = [size for size in args.grid_size if extent > longest(size)]
        if too_fine:  # the coarser ones say nothing more of this scan
            print(f"{scene.parent}: {tell_long(extent, max(too_fine))}")
        finest = min(args.grid_size)
        if np.prod(np.ptp(coord, axis=0).astype(np.float64) / finest + 4) > 2.0**63:
            raise ValueError(
                f"--grid-size: {finest:g}, too fine to number the voxels in the box around "
                f"{scene.parent}, which is {extent:,.0f} m long"
            )
    _tell_strength([path.with_name("strength.npy") for path in scenes])
    print(
        f"\n{'grid size':>9} {'voxels':>9} {'points/voxel':>13} {'alone':>7} {'voxels/block':>13}"
    )
    for size in args.grid_size:
        d = measure(coords, size, args.block_size)
        print(
            f"{d.grid_size:9g} {d.voxels:9,.0f} {d.points_per_voxel:13.2f} {d.alone:7.1%} "
            f"{d.voxels_per_block:13.1f}"
        )
    return 0


def _tell_frame(coords: Sequence[np.ndarray]) -> None:
    points = np.concatenate(coords)
    count = f"{len(coords)} scan" + ("s" if len(coords) > 1 else "")
    print(f"{count} of {len(points) / len(coords):,.0f} points; metres:")
    for axis, values in zip("xyz", points.T):
        print(f"  {axis}  {_spread(values)}")
    height = commonest_height(coords)
    if height is not None:
        print(f"  commonest z {NEAR[0]:g} to {NEAR[1]:g} m from the origin: {height:.2f}")


def _tell_strength(files: Sequence[Path]) -> None:
    if all(file.is_file() for file in files):
        print(f"strength: {_spread(np.concatenate([np.load(file).reshape(-1) for file in files]))}")
    else:
        print("strength: none")


def _spread(values: np.ndarray) -> str:
    low, middle, high = np.percentile(values, (1, 50, 99))
    return f"{low:8.2f} (1 %) {middle:8.2f} (median) {high:8.2f} (99 %)"
