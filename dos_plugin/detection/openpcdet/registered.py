"""Importing this module registers everything: in processes that a launched script spawns."""

from dos_plugin.detection.openpcdet.register import register

register()
