"""Tests run on the embedded host unless DOS_HOST says otherwise."""

import os

os.environ.setdefault("DOS_HOST", "minihost")
