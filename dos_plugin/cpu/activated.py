"""Importing this module activates the CPU stand-ins, silently: in spawned children."""

from dos_plugin.cpu import activate

activate(announce=False)
