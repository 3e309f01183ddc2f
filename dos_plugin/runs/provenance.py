"""What a backbone was trained on, as far as its run says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dos_plugin.models.inputs import datasets
from dos_plugin.runs.run import Run


@dataclass(frozen=True)
class Training:
    """The training of a backbone.

    Attributes:
        kind: what was trained, see :data:`dos_plugin.runs.checkpoint.Kind`.
        data: a line for each data set: its type, folder and split.
        steps: of the optimizer; None if nothing says so.
        epochs: finished ones; None if nothing says so.
    """

    kind: str
    data: tuple[str, ...]
    steps: int | None
    epochs: int | None

    def __str__(self) -> str:
        parts = ["; ".join(self.data) or "unknown data"]
        if self.steps is not None:
            parts.append(f"{self.steps:,} steps")
        if self.epochs is not None:
            parts.append(f"{self.epochs:,} epochs")
        return f"{', '.join(parts)} ({self.kind})"


def training_of(run: Run) -> Training:
    """The training of a run's checkpoint, or of the one that a file was exported from.

    Raises:
        FileNotFoundError, ValueError: as :func:`dos_plugin.runs.checkpoint.read_checkpoint`.
    """
    trained, exported = run.trained, run.trained.exported
    if exported:
        data = tuple(exported.get("data", ()))
    else:
        data = tuple(
            f"{part.config.get('type')} of {Path(str(part.config.get('data_root'))).name}, "
            f"split {_joined(part.config.get('split'))}"
            for part in datasets(run.config, ("train",))
        )
    return Training(exported.get("kind", trained.kind), data, trained.steps, trained.epoch)


def _joined(split: object) -> str:
    return "+".join(map(str, split)) if isinstance(split, (list, tuple)) else str(split)
