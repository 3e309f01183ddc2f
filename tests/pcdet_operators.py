"""A checkout of OpenPCDet as it was cloned, on a CPU: its compiled operators raise when called.

But for NMS, which is rotated boxes by shapely here. Moves to a GPU are the identity, and packages
that are absent and not needed are stood in for, both by ``dos_plugin.cpu``.
"""

import os
import re
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

EXTENSION = re.compile(r"pcdet\.ops\.[\w.]+_(cuda|ext)")
ARGO = "pcdet.datasets.argo2.argo2_dataset"  # imports av2 and kornia, whatever the data set is
VERSION = "pcdet.version"  # written when the host is built


def find_openpcdet() -> Path | None:
    """``OPENPCDET_ROOT``, else the usual cache folder; None where there is no checkout."""
    root = os.environ.get("OPENPCDET_ROOT") or "~/.cache/dos-plugin/OpenPCDet"
    root = Path(root).expanduser()
    return root.resolve() if (root / "pcdet" / "__init__.py").is_file() else None


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name, path=None, target=None):
        ours = name == VERSION or EXTENSION.fullmatch(name)
        if name == ARGO or (ours and PathFinder.find_spec(name, path) is None):
            return ModuleSpec(name, self)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        if module.__name__ == VERSION:
            module.__version__ = "0.6.0"
            return

        def operator(name):
            if name.startswith("__"):
                raise AttributeError(name)

            def refuse(*_, **__):
                raise RuntimeError(f"{module.__name__}.{name}: not part of these tests")

            return refuse

        module.__getattr__ = operator
        if module.__name__.endswith("iou3d_nms_cuda"):
            module.nms_gpu = nms


def nms(boxes, keep, threshold):
    """Rows of (N, 7) boxes, best first, that no better one overlaps in the plane."""
    import numpy as np
    import shapely

    x, y, length, width, yaw = boxes[:, [0, 1, 3, 4, 6]].double().numpy().T[:, :, None]
    along, across = length * [0.5, 0.5, -0.5, -0.5], width * [0.5, -0.5, -0.5, 0.5]
    corners = [x + along * np.cos(yaw) - across * np.sin(yaw)]
    corners += [y + along * np.sin(yaw) + across * np.cos(yaw)]
    shapes = shapely.polygons(np.stack(corners, axis=2))
    left, kept = np.arange(len(shapes)), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        shared = shapely.area(shapely.intersection(shapes[best], shapes[left]))
        union = shapely.area(shapes[best]) + shapely.area(shapes[left]) - shared
        left = left[shared <= threshold * union]
    keep[: len(kept)] = keep.new_tensor(kept)
    return len(kept)


def install() -> None:
    """Let ``pcdet`` be imported and run in this process; where it is built, its operators stay."""
    from dos_plugin.cpu import activate

    activate(announce=False)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
