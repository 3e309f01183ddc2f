"""Synthetic streets: a seeded generator of LiDAR scans in the host's on-disk layout."""

from .classes import CLASS_NAMES, IGNORE, PALETTE, THINGS
from .sensor import Sensor, generate_scan
from .write import write_scenes

__all__ = [
    "CLASS_NAMES",
    "IGNORE",
    "PALETTE",
    "THINGS",
    "Sensor",
    "generate_scan",
    "write_scenes",
]
