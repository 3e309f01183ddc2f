"""What is said where a host of detectors is missing."""

import importlib
import sys

import pytest

PACKAGE = "dos_plugin.detection.mmdet3d"


def test_without_mmdetection3d(monkeypatch):
    for name in (PACKAGE, f"{PACKAGE}.preprocessor"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in {"mmdet3d", *(m for m in sys.modules if m.startswith("mmdet3d."))}:
        monkeypatch.setitem(sys.modules, name, None)
    message = "needs MMDetection3D 1.4, and mmdet3d.* is not there: see docs/detection.md"
    with pytest.raises(ImportError, match=message):
        importlib.import_module(PACKAGE)


def test_the_core_needs_no_host(monkeypatch):
    for name in ("mmdet3d", "mmdet", "mmcv", "pcdet"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("bev", "encoder", "grid", "load", "rates", "subset", "tap"):
        full = f"dos_plugin.detection.{name}"
        monkeypatch.delitem(sys.modules, full, raising=False)
        importlib.import_module(full)
