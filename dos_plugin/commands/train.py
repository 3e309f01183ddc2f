"""``dos-plugin train``: a config on the embedded host, as ``python -m dos_plugin.minihost``."""

from __future__ import annotations

import argparse

from dos_plugin.minihost.config import add_arguments
from dos_plugin.minihost.launch import train

__all__ = ["add_arguments", "main"]


def main(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin train``."""
    train(args)
    return 0
