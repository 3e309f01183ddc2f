"""Rows about the hosts that own detectors, which are looked for and not imported."""

import importlib.util
from collections.abc import Iterator
from importlib import metadata

from dos_plugin.commands.doctor.rows import Row

PACKAGES = ("mmdet3d", "mmdet", "mmcv", "mmengine")
DOCS = "docs/detection.md, environments"


def detector_rows() -> Iterator[Row]:
    """MMDetection3D and its compiled operators, and OpenPCDet."""
    if importlib.util.find_spec("mmdet3d") is None:
        yield Row("ok", "MMDetection3D", "not installed; detection on nuScenes needs it", DOCS)
    else:
        versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
        yield Row("ok", "MMDetection3D", versions)
        if _has("mmcv._ext"):
            yield Row("ok", "mmcv operators", "compiled")
        else:
            text = "mmcv has no compiled operators: enough for the tests, not to train a detector"
            yield Row("warn", "mmcv operators", text, DOCS)
    if importlib.util.find_spec("pcdet") is None:
        text = "not importable here; in its tools folder it is found by the launcher"
        yield Row("ok", "OpenPCDet", text)
    elif not _has("pcdet.ops.iou3d_nms.iou3d_nms_cuda"):
        text = "its operators are not compiled"
        yield Row("warn", "OpenPCDet", text, "python setup.py develop in the checkout")
    else:
        yield Row("ok", "OpenPCDet", f"pcdet {_version('pcdet')}")


def _has(module: str) -> bool:
    """Whether a module can be found; importing its parents may fail, too."""
    try:
        return importlib.util.find_spec(module) is not None
    except Exception:
        return False


def _version(name: str) -> str:
    for distribution in (name, f"{name}-lite"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"
