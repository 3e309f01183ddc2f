"""Hooks of the embedded host, with the names and arguments of the real host's."""

from . import checkpoint, evaluator, progress, schedule  # noqa: F401  (they register themselves)
from .base import HookBase, ModelHook, build_hooks
from .checkpoint import CheckpointLoader, CheckpointSaver
from .evaluator import SemSegEvaluator
from .progress import InformationWriter, IterationTimer
from .schedule import WeightDecaySchedular

__all__ = [
    "CheckpointLoader",
    "CheckpointSaver",
    "HookBase",
    "InformationWriter",
    "IterationTimer",
    "ModelHook",
    "SemSegEvaluator",
    "WeightDecaySchedular",
    "build_hooks",
]
