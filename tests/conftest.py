"""Tests run on the embedded host unless DOS_HOST says otherwise, on one thread each."""

import os
import signal

from yapf.yapflib import yapf_api

os.environ.setdefault("DOS_HOST", "minihost")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the cores are shared

# A job that a script put in the background (`make test &`) ignores Ctrl-C, and so would what tests
# interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Both hosts have yapf format the config of every run, which takes longer than many a test's
# training. The text says the same without; commands in processes of their own format as ever.
yapf_api.FormatCode = lambda text, **_: (text, False)


def pytest_collection_modifyitems(items):
    """The files on the real host first: each takes minutes, and workers are given whole files."""
    items.sort(key=lambda item: not item.path.stem.endswith("_pointcept"))
