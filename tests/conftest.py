"""Tests run on the embedded host unless DOS_HOST says otherwise, on one thread each."""

import os

os.environ.setdefault("DOS_HOST", "minihost")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the cores are shared


def pytest_collection_modifyitems(items):
    """The files on the real host first: each takes minutes, and workers are given whole files."""
    items.sort(key=lambda item: not item.path.stem.endswith("_pointcept"))
