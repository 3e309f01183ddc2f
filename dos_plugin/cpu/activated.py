"""Importing this module activates the CPU stand-ins, silently; only the fork server does so."""

from dos_plugin.cpu import activate

activate(announce=False)
