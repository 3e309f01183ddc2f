"""Boxes of a model on labelled scans: found, scored, logged and written."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dos_plugin.detection.native.metric import Scan, nuscenes_metrics
from dos_plugin.detection.native.submission import submission
from dos_plugin.probing.compare import progress
from dos_plugin.whole_file import write_whole

NEEDED = ("boxes", "box_labels", "offset_box", "token", "ego", "pose")


class Found(NamedTuple):
    """Of all scans, sorted by token."""

    tokens: list[str]
    predicted: list[Scan]
    labelled: list[Scan]
    egos: np.ndarray  # (S, 2) place of the vehicle
    poses: np.ndarray  # (S, 4, 4) from LiDAR to world
    loss: float | None  # mean over the batches of this process


@torch.no_grad()
def detect(model: nn.Module, loader: Iterable[Mapping[str, Any]], where: str) -> Found:
    """Run a detector over a loader, in all processes, and gather what each has found.

    Args:
        model: In any mode; it is left in eval mode.
        loader: Batches with boxes, token, ego and pose.
        where: Place in the config, for messages.

    Raises:
        KeyError: If a batch lacks what is needed.
        ValueError: If there is no scan.
    """
    model.eval()
    device = next(model.parameters()).device
    found: dict[str, tuple] = {}
    losses = []
    for batch in progress(loader, f"boxes, {where}"):
        absent = [key for key in NEEDED if key not in batch]
        if absent:
            raise KeyError(f"a batch of {where} lacks {', '.join(absent)}: Collect passes them on")
        batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        output = model(batch)
        losses.append(output["loss"].item())
        found |= _by_token(output, batch)
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, found)
        found = {token: scan for part in parts for token, scan in part.items()}
    if not found:
        raise ValueError(f"{where} has no scan")
    tokens = sorted(found)
    predicted, labelled, egos, poses = (list(p) for p in zip(*(found[token] for token in tokens)))
    mean = sum(losses) / len(losses) if losses else None
    return Found(tokens, predicted, labelled, np.stack(egos), np.stack(poses), mean)


def score(
    found: Found, names: Sequence[str], ranges: Mapping[str, float] | None, log: logging.Logger
) -> dict[str, float]:
    """mAP, NDS and the rest of :func:`~dos_plugin.detection.native.metric.nuscenes_metrics`."""
    scores = nuscenes_metrics(found.predicted, found.labelled, names, ranges, found.egos)
    for key in ("mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE", "mAAE"):
        log.info(f"{key}: {scores[key]:.4f}")
    for label, name in enumerate(names):
        count = sum((scan.labels == label).sum() for scan in found.labelled)
        log.info(f"AP of {name}: {scores[f'AP/{name}']:.4f} ({count} boxes)")
    log.info(f"Val result: mAP/NDS {scores['mAP']:.4f}/{scores['NDS']:.4f}.")
    return scores


def write(
    folder: Path, found: Found, names: Sequence[str], result: Mapping[str, Any] | None, boxes: bool
) -> None:
    """``result.json`` if there is a result, and ``submission.json`` if ``boxes``; one process."""
    if torch.distributed.is_initialized() and torch.distributed.get_rank():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if result is not None:
        _write(folder / "result.json", dict(scans=len(found.tokens), **result), indent=1)
    if boxes:
        content = submission(found.tokens, found.predicted, found.poses, names)
        _write(folder / "submission.json", content)


def _write(path: Path, content: Mapping[str, Any], indent: int | None = None) -> None:
    text = json.dumps(content, indent=indent)
    write_whole(path, lambda file: file.write_text(text + "\n", encoding="utf-8"))


def _by_token(output: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, tuple]:
    found = {}
    start = 0
    which = output["batch"]
    for number, (token, end) in enumerate(zip(batch["token"], batch["offset_box"].tolist())):
        own = which == number
        predicted = Scan(*(_array(output[key][own]) for key in ("boxes", "scores", "labels")))
        boxes, labels = (_array(batch[key][start:end]) for key in ("boxes", "box_labels"))
        true = Scan(boxes, np.ones(len(boxes)), labels)
        ego, pose = (_array(batch[key][number]) for key in ("ego", "pose"))
        found[token] = (predicted, true, ego, pose)
        start = end
    return found


def _array(tensor: Tensor) -> np.ndarray:
    array = tensor.cpu().numpy()
    return array.astype(np.float64) if array.dtype.kind == "f" else array
