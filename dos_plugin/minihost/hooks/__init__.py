"""Hooks of the embedded host, with the names and arguments of the real host's."""

from . import checkpoint, progress, schedule  # noqa: F401  (they register themselves)
from .base import HookBase, ModelHook, build_hooks
from .checkpoint import CheckpointLoader, CheckpointSaver
from .progress import InformationWriter, IterationTimer
from .schedule import WeightDecaySchedular

__all__ = [
    "CheckpointLoader",
    "CheckpointSaver",
    "HookBase",
    "InformationWriter",
    "IterationTimer",
    "ModelHook",
    "WeightDecaySchedular",
    "build_hooks",
]
