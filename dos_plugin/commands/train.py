"""``dos-plugin train``: a config on the embedded host, as ``python -m dos_plugin.minihost``."""

from __future__ import annotations

import argparse

from dos_plugin.minihost import config
from dos_plugin.minihost.launch import train

EXAMPLES = """examples:
  dos-plugin train --config-file configs/dos/pretrain-dos-v1m1-9-demo.py \\
      --options data.train.data_root=data/mine save_path=exp/dos/mine"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin train``."""
    parser.epilog = EXAMPLES
    config.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin train``."""
    train(args)
    return 0
