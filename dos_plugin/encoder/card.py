"""The model card of an exported backbone, filled from its run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dos_plugin.encoder.encoder import Encoder
from dos_plugin.models.backbone import BRANCHES, Branch
from dos_plugin.runs.run import Run

TEMPLATE = """\
# {type}, pretrained with DOS

A backbone for 3D point clouds, pretrained without labels by DOS ([arXiv 2512.11465]\
(https://arxiv.org/abs/2512.11465)) with dos-plugin {version}.

**License: to fill in** here and in the head of this file. The terms of the data may bind what is \
trained on them: nuScenes, KITTI and Waymo are for non-commercial use.

## Use

```
pip install 'dos-plugin[demo,hub]'
```

```python
import dos_plugin

encoder = dos_plugin.load("OWNER/NAME")  # or this folder
scan = encoder.read("scan.pcd")  # or encoder.scan({arguments})
features = encoder(scan)
features.per_point  # (N, {channels})
```

| input | |
| --- | --- |
{inputs}

The backbone sees {feat_keys} of voxels of {grid_size:g} m; a feature has {channels} numbers.

## Training

| | |
| --- | --- |
| what | {kind}, weights of the {branch} |
| data | {data} |
| steps | {steps} |
| epochs | {epochs} |

## Probe

{probe}

## Limits

Features hold for sensors, scenes and frames like those of the training: another height of the \
sensor, another scale of the strengths or another density of points is another input.
"""


def model_card(encoder: Encoder, version: str, probe: str | None = None) -> str:
    """Text of a ``README.md`` for the Hugging Face Hub.

    Args:
        encoder: the backbone.
        version: of this package.
        probe: what :func:`probe_figures` says.

    Raises:
        ModuleNotFoundError: huggingface_hub is not installed.
    """
    from huggingface_hub import ModelCardData

    head = ModelCardData(
        library_name="dos-plugin",
        license="other",
        license_name="to-fill-in",
        tags=["point-cloud", "lidar", "self-supervised-learning", "feature-extraction"],
    )
    training = encoder.training
    others = [f"{key}={key}" for key in encoder.inputs if key != "coord"]
    body = TEMPLATE.format(
        type=encoder.backbone_type,
        version=version,
        arguments=", ".join(["coord", *others]),
        channels=encoder.channels,
        inputs="\n".join(f"| `{key}` | {wanted} |" for key, wanted in encoder.inputs.items()),
        feat_keys=", ".join(encoder.feat_keys),
        grid_size=encoder.grid_size,
        kind=training.kind,
        branch=encoder.branch,
        data="; ".join(training.data) or "unknown",
        steps=_number(training.steps),
        epochs=_number(training.epochs),
        probe=probe or "No probe is recorded with the run: `dos-plugin probe` makes one.",
    )
    return f"---\n{head.to_yaml()}\n---\n\n{body}"


def probe_figures(run: Run, branch: Branch) -> str | None:
    """A table of the probe of a run's checkpoint, out of ``probe.json`` in its folder, if any.

    Args:
        run: its file is that of OnlineProbe, or of ``dos-plugin probe --json``.
        branch: whose backbone was probed.

    Raises:
        ValueError: if the file is neither.
    """
    path = run.folder / "probe.json"
    if run.trained.exported or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        if isinstance(content, Mapping):
            rows = _of_command(content["probe"], branch)
            place, scans = content["val"]["place"], content["val"]["scans"]
            note = f"{scans} scans of {Path(place).parent.name}/{Path(place).name}."
        else:
            rows = _of_hook(run, content, branch)
            note = "A small probe while training, with one seed."
        if not rows:
            return None
        lines = [
            f"| {name} | {linear['miou']:.1f} | {linear['accuracy']:.1f} | {_miou(knn)} |"
            for name, linear, knn in rows
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: is no probe as OnlineProbe or dos-plugin probe --json write it, move it away"
        ) from error
    head = (
        "| frozen features | linear probe, mIoU | accuracy | kNN, mIoU |\n| --- | --- | --- | --- |"
    )
    return "\n".join([head, *lines, "", f"Percent. {note}"])


Row = tuple[str, Mapping[str, Any], Mapping[str, Any] | None]


def _of_command(probe: Mapping[str, Any], branch: Branch) -> list[Row]:
    """The branch, and what it must beat."""
    if branch not in probe:
        return []
    names = {branch: f"these ({branch})", "random": "random weights", "raw": "raw inputs"}
    return [
        (name, probe[key], probe[key].get("knn")) for key, name in names.items() if key in probe
    ]


def _of_hook(run: Run, history: list[Mapping[str, Any]], branch: Branch) -> list[Row]:
    """The entry of the checkpoint's epoch, and that before training."""
    hooks = run.config.get("hooks") or ()
    probed = [hook.get("branch", BRANCHES[0]) for hook in hooks if hook["type"] == "OnlineProbe"]
    by_epoch = {entry["epoch"]: entry for entry in history}
    epoch = run.trained.epoch
    if probed != [branch] or not epoch or epoch not in by_epoch:
        return []
    names = {epoch: f"these ({branch}), epoch {epoch}", 0: "before training"}
    return [
        (name, by_epoch[key]["linear"], by_epoch[key].get("knn"))
        for key, name in names.items()
        if key in by_epoch
    ]


def _miou(scores: Mapping[str, Any] | None) -> str:
    return "-" if scores is None else f"{scores['miou']:.1f}"


def _number(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"
