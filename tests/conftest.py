"""Tests run on the embedded host unless DOS_HOST says otherwise, on one thread each."""

import os

os.environ.setdefault("DOS_HOST", "minihost")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the cores are shared
