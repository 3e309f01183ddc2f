"""``dos-plugin inspect``: what is in a checkpoint, by its tensors and the config beside it.

Needs torch alone.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dos_plugin.messages import some
from dos_plugin.models.backbone import BRANCHES, SERIALIZED, STEMS
from dos_plugin.models.inputs import feature_keys, grid_size
from dos_plugin.runs.checkpoint import Checkpoint, below, checkpoint_of, load_file, starts
from dos_plugin.runs.config import config_beside, plain, read_literals
from dos_plugin.runs.hub import WEIGHTS, is_hub_folder

BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "inv_freq")


@dataclass
class BackboneFacts:
    """A backbone, by its tensors.

    Attributes:
        type: registry name, ``"unknown"`` where the first layer is none that is known here.
        parameters: how many numbers, without buffers.
        in_channels: input features; None of an unknown backbone, like what follows.
        enc_channels: widths of the encoder's stages, finest first.
        dec_channels: widths of the decoder's stages, finest first; None without decoder.
        out_channels: of the decoder, else of all levels of the encoder together.
        mask_token: it has one.
    """

    type: str
    parameters: int
    in_channels: int | None = None
    enc_channels: list[int] | None = None
    dec_channels: list[int] | None = None
    out_channels: int | None = None
    mask_token: bool | None = None

    def __str__(self) -> str:
        parts = [self.type, f"{self.parameters / 1e6:.2f} M parameters"]
        if self.enc_channels is not None:
            parts.append(f"{self.in_channels} channels in")
            parts.append(f"encoder {'-'.join(map(str, self.enc_channels))}")
        if self.dec_channels:
            parts.append(f"decoder {'-'.join(map(str, self.dec_channels[::-1]))}")
        if self.out_channels is not None:
            levels = "" if self.dec_channels else " (all levels together)"
            parts.append(f"{self.out_channels} channels out{levels}")
        return ", ".join([*parts, *(["mask token"] if self.mask_token else [])])


@dataclass
class CheckpointInfo:
    """What is in a checkpoint.

    Attributes:
        file: its path.
        bytes: its size.
        kind: see :data:`dos_plugin.runs.checkpoint.Kind`.
        parameters: how many numbers are in its tensors.
        dtypes: of its tensors.
        not_finite: names of tensors with NaN or infinite values.
        keys_start_with: first two words of the tensors' names.
        exported: format, version and kind that an exported file says.
        epoch: finished epochs, where the file says so.
        optimizer: whether training can go on from it, for files of trainings.
        branches: backbones by network.
        backbone_prefix: what stands in front of a backbone's names in a file of something else.
        backbone: that backbone.
        head_channels: widths of the projection head.
        prototypes: number and width of prototypes.
        prototypes_of: the networks that have them.
        classes: of a segmentation head.
        config: where the config was read, or why not.
        backbone_config: the config's backbone.
        input: what the backbone is fed with.
        differs: where config and tensors disagree.
        to_load: hooks, or a call, that get the backbone out of the file.
    """

    file: str
    bytes: int
    kind: str
    parameters: int
    dtypes: list[str]
    not_finite: list[str]
    keys_start_with: list[str]
    exported: dict[str, Any] | None = None
    epoch: int | None = None
    optimizer: bool | None = None
    branches: dict[str, BackboneFacts] = field(default_factory=dict)
    backbone_prefix: str | None = None
    backbone: BackboneFacts | None = None
    head_channels: list[int] | None = None
    prototypes: list[int] | None = None
    prototypes_of: list[str] | None = None
    classes: int | None = None
    config: str = "none beside it"
    backbone_config: str | None = None
    input: str | None = None
    differs: str | None = None
    to_load: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """The fields for JSON, without those that say nothing."""
        return _without_none(asdict(self))


EXAMPLES = """examples:
  dos-plugin inspect exp/dos/demo/model/model_last.pth"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin inspect``."""
    parser.epilog = EXAMPLES
    parser.add_argument("checkpoint", help="any checkpoint, a run's folder, or an exported one")
    parser.add_argument("--config", help="config of the run, if it is not in the run's folder")
    parser.add_argument("--json", metavar="FILE", help="also write it to a file ('-': print it)")


def main(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin inspect``."""
    info = inspect(args.checkpoint, args.config)
    text = json.dumps(info.plain(), indent=1)
    if args.json and args.json != "-":
        Path(args.json).write_text(text)
    print(text if args.json == "-" else format_info(info))
    return 0


def inspect(path: str | Path, config: str | Path | None = None) -> CheckpointInfo:
    """What is in a checkpoint.

    Args:
        path: any torch file, a run's folder, or a folder of ``dos-plugin export --to hub``.
        config: config file, if it does not lie in the run's folder.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is truncated, no torch file, or without tensors.
    """
    path = Path(path)
    if path.is_dir() and not is_hub_folder(path):
        path = path / "model" / "model_last.pth"
    content = load_file(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    tensors = {k: v for k, v in (state or {}).items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(f"{path}: holds no tensors by name, expected a checkpoint")
    of_training = "state_dict" in content
    found = checkpoint_of({**(content if of_training else {}), "state_dict": tensors}, path)
    tensors = found.state
    info = CheckpointInfo(
        file=str(path),
        bytes=(path / WEIGHTS if path.is_dir() else path).stat().st_size,
        kind=found.kind,
        parameters=sum(value.numel() for value in tensors.values()),
        dtypes=sorted({str(v.dtype).removeprefix("torch.") for v in tensors.values()}),
        not_finite=[k for k, v in tensors.items() if not bool(torch.isfinite(v).all())],
        keys_start_with=starts(tensors),
        epoch=found.epoch,
        branches={branch: backbone_facts(found.backbone(branch)) for branch in found.branches},
    )
    if found.exported:
        info.exported = {
            key: found.exported[key]
            for key in ("format", "version", "kind")
            if key in found.exported
        }
    elif of_training and found.kind != "other":
        info.optimizer = found.resumable
    if not info.branches and (prefix := backbone_prefix(tensors)) is not None:
        info.backbone_prefix, info.backbone = prefix, backbone_facts(below(tensors, prefix))
    _add_heads(info, tensors)
    _add_config(info, found, config)
    info.to_load = _loaders(info, found)
    return info


def backbone_facts(state: Mapping[str, Tensor]) -> BackboneFacts:
    """Type, size and widths of a backbone from its tensors by the host's names."""
    stem = next((name for name in STEMS if name in state), None)
    parameters = sum(v.numel() for k, v in state.items() if not k.endswith(BUFFERS))
    facts = BackboneFacts(STEMS[stem] if stem else "unknown", parameters)
    if stem is None:
        return facts
    if any("rope" in key for key in state):
        facts.type = "PT-v3m3"
    elif facts.type == "PT-v3m1" and not any(".cpe." in key for key in state):
        facts.type = "LitePT-v1"  # convolutions where PTv3 encodes positions
    weight = state[stem]
    # spconv keeps weights as (out, kernel..., in).
    facts.in_channels = weight.shape[1] if weight.ndim == 2 else weight.shape[-1]
    if facts.type.startswith(SERIALIZED):
        facts.enc_channels = _widths(state, r"enc\.enc(\d+)\.block0\.(norm1\.0|conv\.2)\.weight")
        facts.dec_channels = _widths(state, r"dec\.dec(\d+)\.up\.proj\.0\.weight") or None
        facts.mask_token = "embedding.mask_token" in state or None
        facts.out_channels = (facts.dec_channels or [sum(facts.enc_channels)])[0]
    else:
        facts.enc_channels = _widths(state, r"enc\.(\d+)\.block0\.bn1\.weight")
        facts.dec_channels = _widths(state, r"dec\.(\d+)\.block0\.bn1\.weight") or None
        facts.out_channels = facts.dec_channels[0] if facts.dec_channels else None
    return facts


def backbone_prefix(state: Mapping[str, Tensor]) -> str | None:
    """What stands in front of a backbone's names in a checkpoint of something else, if any."""
    found = (key.removesuffix(stem) for key in state for stem in STEMS if key.endswith(stem))
    return next(found, None)


def format_info(info: CheckpointInfo) -> str:
    """The lines for the terminal."""
    kind = info.kind
    if info.exported is not None:
        made = info.exported
        source = f"by dos-plugin {made.get('version')} from a {made.get('kind')}"
        kind = f"exported to {made.get('format')} {source}"
    rows = [("file", f"{info.file} ({info.bytes / 2**20:.1f} MiB)"), ("kind", kind)]
    if info.epoch is not None:
        kept = " (with optimizer: training can go on)" if info.optimizer else ""
        rows.append(("epoch", f"{info.epoch}{kept}"))
    rows.append(("tensors", f"{info.parameters / 1e6:.2f} M numbers, {', '.join(info.dtypes)}"))
    bad = info.not_finite
    rows.append(("finite", f"NO: NaN or inf in {len(bad)} tensors: {some(bad)}" if bad else "yes"))
    parts = info.branches or ({"backbone": info.backbone} if info.backbone else {})
    rows += [(name, str(facts)) for name, facts in parts.items()]
    if info.head_channels is not None:
        rows.append(("head", " -> ".join(map(str, info.head_channels))))
    if info.prototypes is not None:
        count, width = info.prototypes
        of = " and ".join(info.prototypes_of or [])
        rows.append(("prototypes", f"{count} of {width} channels ({of})"))
    if info.classes is not None:
        rows.append(("classes", str(info.classes)))
    if not parts:
        known = f"no backbone known here; they start with {some(info.keys_start_with)}"
        rows.append(("keys", known))
    rows.append(("config", info.config))
    further = (
        ("backbone", info.backbone_config),
        ("input", info.input),
        ("DIFFERS", info.differs),
    )
    rows += [(name, text) for name, text in further if text is not None]
    rows += [("to load" if i == 0 else "", line) for i, line in enumerate(info.to_load)]
    return "\n".join(f"{name:<12}{text}" for name, text in rows)


def _add_heads(info: CheckpointInfo, state: Mapping[str, Tensor]) -> None:
    """Sizes of projection head, prototypes and segmentation head."""
    layers = [
        v.shape for k, v in state.items() if re.fullmatch(r"student\.head\.mlp\.\d+\.weight", k)
    ]
    if layers:
        info.head_channels = [layers[0][1], *(shape[0] for shape in layers)]
    name = "{}.prototypes.weight"
    owners = [branch for branch in BRANCHES if name.format(branch) in state]
    if owners:
        info.prototypes = list(state[name.format(owners[0])].shape)
        info.prototypes_of = [str(branch) for branch in owners]
    if "seg_head.weight" in state:
        info.classes = state["seg_head.weight"].shape[0]


def _add_config(info: CheckpointInfo, found: Checkpoint, config: str | Path | None) -> None:
    """Where the config is, its backbone and input; that of an exported file is in it."""
    place = Path(config) if config else None
    try:
        if place is None and found.exported:
            values, info.config = found.exported["config"], "in the file"
        else:
            place = place or config_beside(found.path)
            if place is None:
                return
            values, info.config = read_literals(place), str(place)
    except ValueError as error:
        info.config = f"not read: {error}"
        return
    backbone = (values.get("model") or {}).get("backbone") or {}
    if backbone:
        ordered = {"type": backbone.get("type"), **backbone}
        info.backbone_config = ", ".join(f"{k}={v!r}" for k, v in ordered.items())
        facts = next(iter(info.branches.values()), info.backbone)
        wrong = [
            f"{key}={plain(backbone[key])!r} in the config, {there!r} in the file"
            for key in ("type", "in_channels", "enc_channels")
            if key in backbone
            and (there := getattr(facts, key, None)) is not None
            and _listed(backbone[key]) != there
        ]
        info.differs = "; ".join(wrong) or None
    transform = ((values.get("data") or {}).get("train") or {}).get("transform") or []
    try:
        keys, size = feature_keys(transform), grid_size(transform)
    except ValueError:  # of another method
        return
    info.input = f"{', '.join(keys)}; voxels of {size:g} m"


def _loaders(info: CheckpointInfo, found: Checkpoint) -> list[str]:
    """Hooks with which the host gets the backbone into a segmentor's ``backbone``."""
    hook = 'dict(type="CheckpointLoader", keywords="module.{}", replacement="module.{}")'
    if found.exported.get("format") == "hub":
        return [f"dos_plugin.load({info.file!r})"]
    if found.exported and found.exported.get("format") != "pointcept":
        return [f"dos_plugin.runs.torch_pointcloud.load({info.file!r})"]
    if info.kind in ("exported", "segmentation run"):
        return ['dict(type="CheckpointLoader")', 'dict(type="PretrainedLoader")']
    if info.backbone_prefix is not None:
        return [hook.format(info.backbone_prefix, "backbone.")]
    return [
        line
        for branch in info.branches
        for line in (
            hook.format(f"{branch}.backbone", "backbone"),
            f'dict(type="PretrainedLoader", branch="{branch}")',
        )
    ]


def _widths(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    """Widths of numbered stages, stage 0 first."""
    found = {int(m[1]): len(v) for k, v in state.items() if (m := re.fullmatch(pattern, k))}
    return [found[stage] for stage in sorted(found)]


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _without_none(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_none(item) for key, item in value.items() if item is not None}
