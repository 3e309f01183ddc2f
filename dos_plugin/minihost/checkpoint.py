"""Checkpoint files: atomic writing, careful reading, and whether weights fit a model."""

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dos_plugin.whole_file import write_whole

_PREFIX = "module."


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint; on failure the previous file of that name stays as it was."""
    write_whole(path, lambda file: torch.save(content, file))


def load_checkpoint(path: str, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint without running code that may be hidden in it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or has no ``state_dict``.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"weight: there is no checkpoint file {path!r}")
    # Metrics of the real host are NumPy numbers, which torch does not admit by itself.
    scalar: Any = np.float64(0).__reduce__()[0]
    torch.serialization.add_safe_globals(
        [scalar, np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32))]
    )
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file fails in any way
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise ValueError(f"weight: cannot read {path!r} as a checkpoint: {reason}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"weight: the checkpoint {path!r} has no state_dict")
    return checkpoint


def rename_keys(
    state_dict: Mapping[str, Tensor], keywords: str, replacement: str, distributed: bool
) -> tuple[dict[str, Tensor], set[str]]:
    """Apply the real host's renaming: put "module." in front, replace once, take it off again.

    Returns:
        The renamed state dict, and those of its keys that contained ``keywords``.

    Raises:
        ValueError: If a replaced key does not begin with "module." any more.
    """
    renamed, meant = {}, set()
    for key, value in state_dict.items():
        if not key.startswith(_PREFIX):
            key = _PREFIX + key
        is_meant = keywords in key
        key = key.replace(keywords, replacement, 1)
        if not key.startswith(_PREFIX):
            raise ValueError(
                f"replacement ({replacement!r}) must keep {_PREFIX!r} at the start of a key, "
                f"but gives {key!r}"
            )
        name = key if distributed else key[len(_PREFIX) :]
        renamed[name] = value
        if is_meant:
            meant.add(name)
    return renamed, meant


def check_fit(
    own: Mapping[str, Tensor],
    weight: Mapping[str, Tensor],
    meant: set[str],
    source: str,
    strict: bool,
) -> tuple[list[str], list[str]]:
    """Decide whether weights belong to a model.

    A checkpoint may hold more than the model (a teacher, heads) or less (a new head, a decoder).
    It is that of another model if

    - the shape of a tensor differs,
    - a layer that both have holds other tensors (batch normalization here, layer normalization
      there), or
    - fewer than half of the tensors that were meant for the model find a place, and fewer than half
      of the model's are found.

    Args:
        own: State dict of the model.
        weight: State dict of the checkpoint, with the model's names.
        meant: Keys of ``weight`` that were meant for the model.
        source: Name of the checkpoint for messages.
        strict: Also refuse every other missing or unexpected key.

    Returns:
        The model's keys that are missing in the checkpoint, and the keys the model does not have.

    Raises:
        ValueError: If the checkpoint does not fit; the keys at fault are listed.
    """
    missing = [key for key in own if key not in weight]
    unexpected = [key for key in weight if key not in own]
    wrong_shape = [
        f"{key} {tuple(weight[key].shape)}, model {tuple(own[key].shape)}"
        for key in own
        if key in weight and own[key].shape != weight[key].shape
    ]
    own_layers, layers = _by_layer(own), _by_layer(weight)
    differing = [name for name in own_layers if name in layers and own_layers[name] != layers[name]]
    placed = sum(key in own for key in meant)
    elsewhere = 2 * placed < max(len(meant), 1) and 2 * (len(own) - len(missing)) < len(own)
    if wrong_shape or differing or elsewhere or (strict and (missing or unexpected)):
        raise ValueError(
            f"the checkpoint {source!r} does not fit the model (another backbone?): "
            f"wrong shape: {_some(wrong_shape)}; missing: {_some(missing)}; "
            f"unexpected: {_some(unexpected)}; layers with other tensors: {_some(differing)}"
        )
    return missing, unexpected


def _by_layer(keys: Mapping[str, Tensor]) -> dict[str, set[str]]:
    layers: dict[str, set[str]] = defaultdict(set)
    for key in keys:
        layers[key.rpartition(".")[0]].add(key)
    return layers


def _some(items: list[str], limit: int = 6) -> str:
    if not items:
        return "none"
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return f"{len(items)} ({', '.join(items[:limit])}{more})"
