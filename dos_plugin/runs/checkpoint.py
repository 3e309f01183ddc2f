"""A checkpoint file: read without running code that may hide in it, and what kind it is."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dos_plugin.messages import some
from dos_plugin.models.backbone import BRANCHES, Branch
from dos_plugin.runs.hub import is_hub_folder, read_folder

Kind = Literal["DOS pretraining", "other pretraining", "segmentation run", "exported", "other"]

# The key of an exported file under which it says what it is, see dos_plugin.commands.export.
META = "dos_plugin"


def _numpy_scalar(module: str) -> Any:
    """NumPy's maker of scalars under the name of a module, for torch's list of harmless names."""
    make: Any = np.float64(0).__reduce__()[0]

    def scalar(dtype: Any, data: Any) -> Any:
        return make(dtype, data)

    scalar.__module__, scalar.__qualname__ = module, "scalar"
    return scalar


# The host saves its best metric and weight decays as NumPy numbers, by NumPy 1's or 2's name.
_NUMPY: list[Any] = [
    np.dtype,
    codecs.encode,  # of their bytes; torch allows it by itself from 2.5 on
    *(_numpy_scalar(module) for module in ("numpy.core.multiarray", "numpy._core.multiarray")),
    *(type(np.dtype(kind)) for kind in (np.float16, np.float32, np.float64, np.int64)),
]
torch.serialization.add_safe_globals(_NUMPY)


def load_file(path: str | Path) -> Any:
    """What a torch file holds, on the CPU; only tensors, numbers, strings and containers.

    A folder of ``dos-plugin export --to hub`` stands for a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, is no torch file, or holds other objects.
    """
    if is_hub_folder(path):
        return read_folder(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file, expected a checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in any way
        found = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        if found:
            raise ValueError(
                f"{path}: holds {found[1]} objects, which could run code when they are read; "
                "expected tensors, numbers and strings. Where the file comes from, save it again "
                "as torch.save(dict(epoch=..., state_dict=...), FILE)"
            ) from error
        raise ValueError(
            f"{path}: truncated or not a torch file ({type(error).__name__}), expected a checkpoint"
        ) from error


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of the host's trainer, or an exported file, without optimizer states.

    Attributes:
        path: the file.
        kind: what was trained.
        epoch: finished epochs; None if the file does not say.
        steps: steps of the optimizer; None if the file does not say.
        state: the ``state_dict`` without DDP's prefix ``module.``.
        resumable: it has an optimizer state, so that training can go on.
        exported: what an exported file says about itself, else empty; see
            :mod:`dos_plugin.commands.export`.
        constructor: of torch-pointcloud's model, in files exported for it, else empty.
        kwargs: of that constructor.
    """

    path: Path
    kind: Kind
    epoch: int | None
    steps: int | None
    state: dict[str, Tensor]
    resumable: bool
    exported: Mapping[str, Any]
    constructor: str = ""
    kwargs: Mapping[str, Any] | None = None

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Networks whose backbone it holds: of a pretraining, a segmentor, or neither."""
        if self.kind == "exported":
            return (self.exported["branch"],)
        if self.kind == "segmentation run":
            return ("segmentor",)
        return tuple(name for name in BRANCHES if below(self.state, f"{name}.backbone."))

    def check_ours(self) -> None:
        """Refuse a checkpoint of something else.

        Raises:
            ValueError: if it is no DOS pretraining, segmentation run or exported file.
        """
        if self.kind.startswith("other"):
            raise ValueError(
                f"{self.path}: holds no DOS model, its keys start with {some(starts(self.state))}; "
                "expected a DOS pretraining, a segmentation run or a file of dos-plugin export"
            )

    def backbone(self, branch: Branch) -> dict[str, Tensor]:
        """State dict of a backbone by the host's names, without a prefix.

        Raises:
            ValueError: if the checkpoint does not hold it; lists what it holds.
        """
        there = self.branches
        if branch not in there and there:
            raise ValueError(
                f"{self.path}: holds no {branch!r} backbone ({self.kind}), it has: "
                f"{', '.join(there)}"
            )
        if self.kind == "exported":
            names = self.exported.get("host_names")
            if names is not None:
                return {names[key]: value for key, value in self.state.items()}
        elif branch not in there or branch != "segmentor":
            return self.part("student" if branch == "segmentor" else branch, "backbone")
        return below(self.state, "backbone.")

    def part(self, branch: Branch, part: str) -> dict[str, Tensor]:
        """State dict of a part of a pretraining's network, as ``backbone`` or ``head``.

        Raises:
            ValueError: if the checkpoint does not hold it; lists what it holds.
        """
        found = below(self.state, f"{branch}.{part}.")
        if not found:
            raise ValueError(
                f"{self.path}: holds no '{branch}.{part}.*', its keys start with "
                f"{some(starts(self.state))}"
            )
        return found


def read_checkpoint(path: str | Path | None) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated or is no checkpoint of the host.
    """
    if path is None or not (Path(path).is_file() or is_hub_folder(path)):
        raise FileNotFoundError(
            f"{path or 'model/model_last.pth'}: no checkpoint there, has the run finished its "
            "first epoch?"
        )
    content = load_file(path)
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise ValueError(
            f"{path}: holds no 'state_dict', expected a checkpoint of the host's trainer"
        )
    return checkpoint_of(content, path)


def checkpoint_of(content: Mapping[str, Any], path: str | Path) -> Checkpoint:
    """The checkpoint in the content of a torch file with a ``state_dict``."""
    exported = content.get(META)
    exported = exported if isinstance(exported, Mapping) else {}
    state = {key.removeprefix("module."): value for key, value in content["state_dict"].items()}
    epoch = content.get("epoch", exported.get("epoch"))
    scheduler = content.get("scheduler")  # the hosts step it with the optimizer
    steps = scheduler.get("last_epoch") if isinstance(scheduler, Mapping) else exported.get("steps")
    return Checkpoint(
        path=Path(path),
        kind="exported" if exported else kind_of(state),
        epoch=None if epoch is None else int(epoch),
        steps=None if steps is None else int(steps),
        state=state,
        resumable="optimizer" in content,
        exported=exported,
        constructor=content.get("constructor", ""),
        kwargs=content.get("kwargs"),
    )


def kind_of(state: Mapping[str, Tensor]) -> Kind:
    """What was trained, by the names in a state dict without DDP's prefix."""
    if any(key.startswith(("student.backbone.", "teacher.backbone.")) for key in state):
        ours = any(key.startswith("student.head.mlp.") for key in state)
        return "DOS pretraining" if ours else "other pretraining"
    if any(key.startswith("backbone.") for key in state):
        return "segmentation run"
    return "other"


def starts(state: Mapping[str, Tensor]) -> list[str]:
    """The first two words of the names in a state dict."""
    return sorted({".".join(key.split(".")[:2]) for key in state})


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose names start with a prefix, without it."""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
