"""What is in a checkpoint, by its tensors and the config beside it; needs torch alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dos_plugin.runs.checkpoint import (
    META,
    backbone_state,
    branches_of,
    kind_of,
    load_file,
    without_module,
)
from dos_plugin.runs.config import config_beside, plain, read_literals

# The first layer of a backbone, and whose it is.
STEMS = {
    "embedding.stem.conv.weight": "PT-v3m1",
    "embedding.stem.linear.weight": "PT-v3m2",
    "conv_input.0.weight": "SpUNet-v1m1",
}


def inspect(path: str | Path, config: str | Path | None = None) -> dict[str, Any]:
    """What is in a checkpoint, under the names that the command prints.

    Args:
        path: any torch file, or a run's folder.
        config: config file, if it does not lie in the run's folder.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is truncated, no torch file, or without tensors.
    """
    path = Path(path)
    path = path / "model" / "model_last.pth" if path.is_dir() else path
    content = load_file(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    tensors = {k: v for k, v in (state or {}).items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(f"{path}: holds no tensors by name, expected a checkpoint")
    named = "state_dict" in content
    content = content if named else dict(state_dict=tensors)
    tensors = without_module(tensors)
    kind = kind_of(content)
    info: dict[str, Any] = dict(file=str(path), bytes=path.stat().st_size, kind=kind)
    meta = content.get(META) or {}
    if kind == "exported":
        info["exported"] = {k: meta[k] for k in ("format", "version", "kind") if k in meta}
    info["epoch"] = content.get("epoch", meta.get("epoch"))
    if named and kind not in ("exported", "other"):
        info["optimizer"] = "optimizer" in content
    info["parameters"] = sum(value.numel() for value in tensors.values())
    info["dtypes"] = sorted({str(v.dtype).removeprefix("torch.") for v in tensors.values()})
    info["not_finite"] = [k for k, v in tensors.items() if not bool(torch.isfinite(v).all())]
    info["branches"] = {
        branch: backbone_facts(backbone_state(content, branch, path))
        for branch in branches_of(content)
    }
    if not info["branches"] and (prefix := backbone_prefix(tensors)) is not None:
        bare = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        info["backbone_prefix"], info["backbone"] = prefix, backbone_facts(bare)
    info |= heads(tensors)
    facts = next(iter(info["branches"].values()), info.get("backbone", {}))
    info |= _config(path, config, meta, facts)
    info["to_load"] = loaders(info, meta)
    info["keys_start_with"] = sorted({".".join(key.split(".")[:2]) for key in tensors})
    return info


def backbone_facts(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Type, size and widths of a backbone from its tensors by the host's names."""
    stem = next((name for name in STEMS if name in state), None)
    facts: dict[str, Any] = dict(
        type=STEMS[stem] if stem else "unknown",
        parameters=sum(v.numel() for k, v in state.items() if not _is_buffer(k)),
    )
    if stem is None:
        return facts
    if any("rope" in key for key in state):
        facts["type"] = "PT-v3m3"
    weight = state[stem]
    # spconv keeps weights as (out, kernel..., in).
    facts["in_channels"] = weight.shape[1] if weight.ndim == 2 else weight.shape[-1]
    if facts["type"].startswith("PT"):
        facts["enc_channels"] = _widths(state, r"enc\.enc(\d+)\.block0\.norm1\.0\.weight")
        decoder = _widths(state, r"dec\.dec(\d+)\.block0\.norm1\.0\.weight")
        if decoder:
            facts["dec_channels"] = decoder
        if "embedding.mask_token" in state:
            facts["mask_token"] = True
        facts["out_channels"] = decoder[0] if decoder else sum(facts["enc_channels"])
    else:
        facts["enc_channels"] = _widths(state, r"enc\.(\d+)\.block0\.bn1\.weight")
        decoder = _widths(state, r"dec\.(\d+)\.block0\.bn1\.weight")
        if decoder:
            facts |= dict(dec_channels=decoder, out_channels=decoder[0])
    return facts


def backbone_prefix(state: Mapping[str, Tensor]) -> str | None:
    """What stands in front of a backbone's names in a checkpoint of something else, if any."""
    found = (key.removesuffix(stem) for key in state for stem in STEMS if key.endswith(stem))
    return next(found, None)


def heads(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of projection head, prototypes and segmentation head."""
    found: dict[str, Any] = {}
    layers = [
        v.shape for k, v in state.items() if re.fullmatch(r"student\.head\.mlp\.\d+\.weight", k)
    ]
    if layers:
        found["head_channels"] = [layers[0][1], *(shape[0] for shape in layers)]
    for owner in ("student", "teacher"):
        prototypes = state.get(f"{owner}.prototypes.weight")
        if prototypes is not None:
            found["prototypes"] = found.get("prototypes") or list(prototypes.shape)
            found["prototypes_of"] = [*found.get("prototypes_of", []), owner]
    if "seg_head.weight" in state:
        found["classes"] = state["seg_head.weight"].shape[0]
    return found


def loaders(info: Mapping[str, Any], meta: Mapping[str, Any]) -> list[str]:
    """Hooks with which the host gets the backbone into a segmentor's ``backbone``."""
    hook = 'dict(type="CheckpointLoader", keywords="module.{}", replacement="module.{}")'
    if info["kind"] == "exported" and meta.get("format") != "pointcept":
        return [f"dos_plugin.runs.torch_pointcloud.load({info['file']!r})"]
    if info["kind"] in ("exported", "segmentation run"):
        return ['dict(type="CheckpointLoader")', 'dict(type="PretrainedLoader")']
    if info["branches"]:
        return [
            line
            for branch in info["branches"]
            for line in (
                hook.format(f"{branch}.backbone", "backbone"),
                f'dict(type="PretrainedLoader", branch="{branch}")',
            )
        ]
    if "backbone_prefix" in info:
        return [hook.format(info["backbone_prefix"], "backbone.")]
    return []


def _config(
    path: Path, config: str | Path | None, meta: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Where the config is, its backbone and input; that of an exported file is in it."""
    found = Path(config) if config else None
    try:
        if found is None and meta:
            values, where = meta["config"], "in the file"
        else:
            found = found or config_beside(path)
            if found is None:
                return dict(config="none beside it")
            values, where = read_literals(found), str(found)
    except ValueError as error:
        return dict(config=f"not read: {error}")
    backbone = (values.get("model") or {}).get("backbone") or {}
    result = dict(config=where)
    if backbone:
        ordered = {"type": backbone.get("type"), **backbone}
        result["backbone_config"] = ", ".join(f"{k}={v!r}" for k, v in ordered.items())
        wrong = [
            f"{key}={plain(backbone[key])!r} in the config, {facts[key]!r} in the file"
            for key in ("type", "in_channels", "enc_channels")
            if key in backbone and key in facts and _listed(backbone[key]) != facts[key]
        ]
        if wrong:
            result["differs"] = "; ".join(wrong)
    if "feat_keys" in meta:
        result["input"] = f"{', '.join(meta['feat_keys'])}; voxels of {meta['grid_size']:g} m"
        return result
    steps = ((values.get("data") or {}).get("train") or {}).get("transform") or []
    keys = [s.get("view1_feat_keys") or s.get("feat_keys") for s in steps]
    sizes = [s["grid_size"] for s in steps if s.get("type") == "GridSample"]
    for view in (s.get("view_transform") or [] for s in steps):
        sizes += [s["grid_size"] for s in view if s.get("type") == "GridSample"]
    if any(keys) and sizes:
        last = next(key for key in reversed(keys) if key)
        names = [key.removeprefix("view1_") for key in last]
        result["input"] = f"{', '.join(names)}; voxels of {sizes[-1]:g} m"
    return result


def _widths(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    """Widths of numbered stages, stage 0 first."""
    found = {int(m[1]): len(v) for k, v in state.items() if (m := re.fullmatch(pattern, k))}
    return [found[stage] for stage in sorted(found)]


def _is_buffer(key: str) -> bool:
    return key.endswith(("running_mean", "running_var", "num_batches_tracked", "inv_freq"))


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
