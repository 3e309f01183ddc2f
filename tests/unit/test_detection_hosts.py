"""What is said where a host of detectors is missing."""

import importlib
import sys
import types

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


def test_without_compiled_operators(monkeypatch):
    class Lite(types.ModuleType):
        def __getattr__(self, name):
            raise ModuleNotFoundError("No module named 'mmcv._ext'", name="mmcv._ext")

    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    monkeypatch.setitem(sys.modules, f"{PACKAGE}.encoder", Lite("encoder"))
    with pytest.raises(ImportError, match=r"without its compiled operators .*install mmcv 2\.1\.0"):
        importlib.import_module(PACKAGE)


def test_the_core_needs_no_host(monkeypatch):
    for name in ("mmdet3d", "mmdet", "mmcv", "pcdet"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("bev", "encoder", "grid", "load", "rates", "subset", "tap"):
        full = f"dos_plugin.detection.{name}"
        monkeypatch.delitem(sys.modules, full, raising=False)
        importlib.import_module(full)
