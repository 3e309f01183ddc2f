"""How many scans a second the views of DOS take, beside the host's own generators of views.

All sides start from the same grid-sampled scan and run the same augmentations, transforms of one
host, on views of the same sizes: `ours` is PointId, TwoViews and BlockMask; `multiview` the host's
MultiViewGenerator with two global views and four local ones or none; `contrastive` the host's
ContrastiveViewsGenerator behind a SphereCrop. Every view ends with a GridSample that gives its grid
coordinates, but for the rows `no grid`: the host's Sonata has no such step. Torch data loaders run
the sides with 1 and 2 workers; samples stay in the workers, so generators are compared and no
pipes. Sides alternate; medians. Without a Pointcept checkout only `ours` is measured.
"""

import importlib.util
import os
import random
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

import common
from dos_plugin.cpu import activate
from dos_plugin.cpu.checkout import find_pointcept
from dos_plugin.scenes.sensor import Sensor, generate_scan

MAX_SIZE, SCALE, LOCAL_SCALE = 65536, (0.4, 1.0), (0.1, 0.4)  # the host's Sonata
AUGMENTATIONS: list[dict] = [  # those of configs/dos/_base_/lidar.py
    dict(type="RandomRotate", angle=[-1, 1], axis="z", center=[0, 0, 0], p=0.8),
    dict(type="RandomRotate", angle=[-1 / 128, 1 / 128], axis="x", center=[0, 0, 0], p=0.8),
    dict(type="RandomRotate", angle=[-1 / 128, 1 / 128], axis="y", center=[0, 0, 0], p=0.8),
    dict(type="RandomScale", scale=[0.9, 1.1]),
    dict(type="RandomFlip", p=0.5),
    dict(type="RandomJitter", sigma=0.005, clip=0.02),
]
SUMMARY = {  # key of the summary -> the other side
    "speedup_vs_multiview_2g4l": "multiview 2g4l",
    "speedup_vs_multiview_2g": "multiview 2g",
    "speedup_vs_multiview_2g4l_no_grid": "multiview 2g4l, no grid",
    "speedup_vs_multiview_2g_no_grid": "multiview 2g, no grid",
    "speedup_vs_contrastive": "contrastive",
}
Sample = dict[str, Any]


def choose_host() -> bool:
    """Make the real host the active one; False where there is none."""
    root = find_pointcept()
    if importlib.util.find_spec("pointcept") is None and root is None:
        os.environ["DOS_HOST"] = "minihost"
        return False
    os.environ["DOS_HOST"] = "pointcept"
    if importlib.util.find_spec("pointcept") is None:
        sys.path.append(str(root))
    activate(announce=False)
    return True


def read_scan(file: str | None, columns: int, grid_size: float) -> Sample:
    """A grid-sampled scan: a KITTI-style ``.bin``, or a synthetic street."""
    from dos_plugin.host import HOST

    if file:
        points = np.fromfile(file, dtype=np.float32).reshape(-1, 4)
        scan = {"coord": points[:, :3].copy(), "strength": points[:, 3:].copy()}
    else:
        street = generate_scan(0, Sensor(columns=columns))
        scan = {key: street[key] for key in ("coord", "strength")}
    return HOST.TRANSFORMS.build(dict(type="GridSample", grid_size=grid_size))(scan)


def ours(grid_sample: Sample) -> Callable[[Sample], int]:
    """PointId, TwoViews and BlockMask."""
    from dos_plugin.transforms.masking import BlockMask
    from dos_plugin.transforms.views import PointId, TwoViews

    views = TwoViews(
        view_scale=SCALE, max_size=MAX_SIZE, view_transform=[*AUGMENTATIONS, grid_sample]
    )
    point_id, mask = PointId(), BlockMask(block_size=1.0, mask_ratio=0.7)

    def run(data: Sample) -> int:
        data = mask(views(point_id(data)))
        return len(data["view1_coord"]) + len(data["view2_coord"])

    return run


def multiview(grid_sample: Sample | None, local_views: int) -> Callable[[Sample], int]:
    """The host's MultiViewGenerator."""
    from dos_plugin.host import HOST

    transform = [*AUGMENTATIONS, *([grid_sample] if grid_sample else [])]
    keys = ("coord", "origin_coord", "strength", *(["grid_coord"] if grid_sample else []))
    generate = HOST.TRANSFORMS.build(
        dict(
            type="MultiViewGenerator",
            global_view_scale=SCALE,
            local_view_num=local_views,
            local_view_scale=LOCAL_SCALE,
            global_transform=transform,
            local_transform=transform,
            max_size=MAX_SIZE,
            view_keys=keys,
        )
    )

    def run(data: Sample) -> int:
        data["origin_coord"] = data["coord"].copy()
        data["index_valid_keys"] = ["coord", "origin_coord", "strength"]
        try:
            data = generate(data)
        except KeyError as error:
            # v1.7.0 stops here when asked for no local view: both global views are made by then,
            # but not yet joined, which counts in its favour.
            if error.args != ("local_coord",):
                raise
            return 0
        return len(data["global_coord"]) + len(data.get("local_coord", ()))

    return run


def contrastive(grid_sample: Sample, size: int) -> Callable[[Sample], int]:
    """The host's ContrastiveViewsGenerator, with views of the mean size of the others."""
    from dos_plugin.host import HOST

    crop = dict(type="SphereCrop", point_max=size, mode="random")
    generate = HOST.TRANSFORMS.build(
        dict(
            type="ContrastiveViewsGenerator",
            view_keys=("coord", "origin_coord", "strength", "index_valid_keys"),
            view_trans_cfg=[crop, *AUGMENTATIONS, grid_sample],
        )
    )

    def run(data: Sample) -> int:
        data["origin_coord"] = data["coord"].copy()
        data["index_valid_keys"] = ["coord", "origin_coord", "strength"]
        data = generate(data)
        return len(data["view1_coord"]) + len(data["view2_coord"])

    return run


class Scans(Dataset):
    """The same scan again and again, each time with another seed; items are numbers of points."""

    def __init__(self, scan: Sample, side: Callable[[Sample], int], length: int, seed: int):
        self.scan, self.side, self.length, self.seed = scan, side, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        random.seed(self.seed + index)
        np.random.seed(self.seed + index)
        # As if just read from disk: the sides may write into it.
        return self.side({key: self.scan[key].copy() for key in ("coord", "strength")})


def main() -> None:
    """Measure, print, write."""
    options = common.parser(__doc__)
    options.add_argument("--scan", metavar="FILE.bin", help="float32 x y z intensity")
    options.add_argument("--columns", type=int, default=4000, help="of the synthetic scan")
    options.add_argument("--grid-size", type=float, default=0.05, help="metres")
    options.add_argument("--scans", type=int, default=24, help="in a timed run of a side")
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="default 1 2")
    args = options.parse_args()

    has_host = choose_host()
    scan = read_scan(args.scan, args.columns, args.grid_size)
    grid_sample = dict(
        type="GridSample", grid_size=args.grid_size, mode="train", return_grid_coord=True
    )
    sides = {"ours": ours(grid_sample)}
    if has_host:
        size = int(sum(SCALE) / 2 * min(MAX_SIZE, len(scan["coord"])))
        sides |= {
            "multiview 2g4l": multiview(grid_sample, 4),
            "multiview 2g": multiview(grid_sample, 0),
            "multiview 2g4l, no grid": multiview(None, 4),
            "multiview 2g, no grid": multiview(None, 0),
            "contrastive": contrastive(grid_sample, size),
        }
    else:
        print("no Pointcept checkout at POINTCEPT_ROOT or ~/.cache/dos-plugin/Pointcept: ours only")
    print(f"scan of {len(scan['coord'])} points after grid sampling at {args.grid_size} m")

    rows, rates = [], {}
    for workers in args.workers:
        loaders = {
            name: DataLoader(
                Scans(scan, side, args.scans, args.seed),
                batch_size=None,
                num_workers=workers,
                persistent_workers=True,
                multiprocessing_context="fork",
            )
            for name, side in sides.items()
        }
        points = {name: [int(n) for n in loader] for name, loader in loaders.items()}
        runs: dict[str, Callable] = {
            name: partial(list, loader) for name, loader in loaders.items()
        }
        times = common.alternate(runs, args.repeats, args.warmup)
        for name in sides:
            rate = args.scans / common.median(times[name])
            rates[name, workers] = rate
            rows.append(
                {
                    "side": name,
                    "workers": workers,
                    "scans_per_s": rate,
                    "ms_per_scan": 1000 / rate,
                    "ours_is_faster": rates["ours", workers] / rate,
                    "points_of_views": int(np.mean(points[name])) or None,
                }
            )
    common.print_table(rows)
    summary: dict[str, Any] = {
        key: rates["ours", 1] / rates[other, 1] if (other, 1) in rates else None
        for key, other in SUMMARY.items()
    }
    common.write_json(args.json, rows, summary)


if __name__ == "__main__":
    main()
