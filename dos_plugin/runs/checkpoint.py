"""A checkpoint file: read without running code that may hide in it, and what kind it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dos_plugin.messages import some

Branch = Literal["student", "teacher", "segmentor"]
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
    *(_numpy_scalar(module) for module in ("numpy.core.multiarray", "numpy._core.multiarray")),
    *(type(np.dtype(kind)) for kind in (np.float16, np.float32, np.float64, np.int64)),
]
torch.serialization.add_safe_globals(_NUMPY)


def load_file(path: str | Path) -> Any:
    """What a torch file holds, on the CPU; only tensors, numbers, strings and containers.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, is no torch file, or holds other objects.
    """
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


def read_checkpoint(checkpoint: str | Path | None) -> Mapping[str, Any]:
    """Everything in a checkpoint that has a ``state_dict``; errors as :func:`read_state`."""
    if checkpoint is None or not Path(checkpoint).is_file():
        raise FileNotFoundError(
            f"{checkpoint or 'model/model_last.pth'}: no checkpoint there, has the run finished "
            "its first epoch?"
        )
    content = load_file(checkpoint)
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise ValueError(
            f"{checkpoint}: holds no 'state_dict', expected a checkpoint of the host's trainer"
        )
    return content


def read_state(checkpoint: str | Path | None) -> dict[str, Tensor]:
    """The ``state_dict`` of a checkpoint, without DDP's ``module.`` prefix.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated or is no checkpoint of the host.
    """
    return without_module(read_checkpoint(checkpoint)["state_dict"])


def read_epoch(checkpoint: str | Path) -> int:
    """Finished epochs of a checkpoint; errors as :func:`read_state`."""
    return int(read_checkpoint(checkpoint).get("epoch") or 0)


def without_module(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without the prefix ``module.`` that DDP puts in front."""
    return {key.removeprefix("module."): value for key, value in state.items()}


def kind_of(content: Mapping[str, Any]) -> Kind:
    """What a checkpoint holds, by its keys."""
    if isinstance(content.get(META), Mapping):
        return "exported"
    keys = without_module(content["state_dict"])
    if any(key.startswith(("student.backbone.", "teacher.backbone.")) for key in keys):
        ours = any(key.startswith("student.head.mlp.") for key in keys)
        return "DOS pretraining" if ours else "other pretraining"
    if any(key.startswith("backbone.") for key in keys):
        return "segmentation run"
    return "other"


def branches_of(content: Mapping[str, Any]) -> tuple[Branch, ...]:
    """Networks whose backbone a checkpoint holds: of a pretraining, a segmentor, or neither."""
    kind = kind_of(content)
    if kind == "exported":
        return (content[META]["branch"],)
    if kind == "segmentation run":
        return ("segmentor",)
    keys = without_module(content["state_dict"])
    names: tuple[Branch, ...] = ("student", "teacher")
    return tuple(name for name in names if any(k.startswith(f"{name}.backbone.") for k in keys))


def check_ours(content: Mapping[str, Any], source: Any) -> None:
    """Refuse a checkpoint of something else.

    Raises:
        ValueError: if it is no DOS pretraining, segmentation run or exported file.
    """
    kind = kind_of(content)
    if kind.startswith("other"):
        seen = sorted({".".join(k.split(".")[:2]) for k in without_module(content["state_dict"])})
        raise ValueError(
            f"{source}: holds no DOS model, its keys start with {some(seen)}; expected a DOS "
            "pretraining, a segmentation run or a file of dos-plugin export"
        )


def backbone_state(content: Mapping[str, Any], branch: Branch, source: Any) -> dict[str, Tensor]:
    """State dict of a backbone by the host's names, without a prefix.

    Args:
        content: a checkpoint of a pretraining or of a segmentation run, or an exported file.
        branch: whose backbone.
        source: name of the file, for messages.

    Raises:
        ValueError: if the checkpoint does not hold it; lists what it holds.
    """
    state = without_module(content["state_dict"])
    there = branches_of(content)
    if branch not in there and there:
        raise ValueError(
            f"{source}: holds no {branch!r} backbone ({kind_of(content)}), it has: "
            f"{', '.join(there)}"
        )
    if kind_of(content) != "exported":
        if branch == "segmentor" and there:
            return _below(state, "backbone.")
        return branch_state(state, "student" if branch == "segmentor" else branch, source)
    names = content[META].get("host_names")
    if names is None:
        return _below(state, "backbone.")
    return {names[key]: value for key, value in state.items()}


def branch_state(
    state: Mapping[str, Tensor], branch: str, source: Any, part: str = "backbone"
) -> dict[str, Tensor]:
    """The entries below ``<branch>.<part>.``, or a ValueError that lists what there is."""
    found = _below(state, f"{branch}.{part}.")
    if not found:
        seen = sorted({".".join(key.split(".")[:2]) for key in state})
        raise ValueError(
            f"{source}: holds no '{branch}.{part}.*', its keys start with {some(seen)}"
        )
    return found


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
