"""``dos-plugin export``: the backbone of a checkpoint on its own, with its config."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dos_plugin import __version__
from dos_plugin.encoder.card import model_card, probe_figures
from dos_plugin.encoder.encoder import Encoder
from dos_plugin.models.backbone import (
    Branch,
    build_backbone,
    kept_orders,
    load_strictly,
    shuffles_at_poolings,
)
from dos_plugin.models.inputs import feature_keys, grid_size
from dos_plugin.probing.scans import dataset_config, scan_transform
from dos_plugin.runs.checkpoint import META
from dos_plugin.runs.config import plain
from dos_plugin.runs.hub import CARD, write_folder
from dos_plugin.runs.provenance import training_of
from dos_plugin.runs.run import Run, open_run
from dos_plugin.whole_file import write_whole

FORMATS = ("pointcept", "torch-pointcloud", "hub")

# What an exported file says of a backbone that gives a scan other features in each pass.
SHUFFLES = (
    "the host's {} permutes its curves at every pooling, in eval mode too and whatever "
    "shuffle_orders says, so two passes over a scan differ; dos_plugin.load, dos-plugin probe and "
    "a frozen DOS-Segmentor-v1m1 do not let it; docs/checkpoints.md says how much"
)

# Of data.train these belong to a machine or a training and not to a backbone.
NOT_KEPT = ("cache", "data_root", "la_file", "loop", "lr_file", "split", "test_cfg", "test_mode")


def export(run: Run, to: str, branch: Branch | None = None) -> dict[str, Any]:
    """What goes into the file: tensors, numbers, strings and containers alone.

    Args:
        run: a pretraining, a segmentation run or an exported file, with its checkpoint.
        to: one of ``FORMATS``.
        branch: whose backbone; by default the student's of a pretraining, else the only one.

    Returns:
        ``state_dict``, ``config`` (that of the backbone), with ``torch-pointcloud`` also
        ``constructor`` and ``kwargs`` of its model, and what else is known under ``dos_plugin``.

    Raises:
        ValueError: if the checkpoint has no such backbone, it does not fit its config, or the
            format cannot express it.
        FileNotFoundError: if the run has no checkpoint.
    """
    if to not in FORMATS:
        raise ValueError(f"to: got {to!r}, expected one of {', '.join(FORMATS)}")
    trained = run.trained
    trained.check_ours()
    chosen: Branch = branch or trained.branches[0]
    state = trained.backbone(chosen)
    config = backbone_config(run.config, chosen)
    load_strictly(build_backbone(run.config, chosen), state, f"{run.checkpoint} ({chosen})")
    left_out: tuple[str, ...] = ()
    if to == "torch-pointcloud" and config.get("mask_token"):
        config["mask_token"], left_out = False, ("embedding.mask_token",)

    training = training_of(run)
    meta = dict(
        format=to,
        version=__version__,
        kind=training.kind,
        branch=chosen,
        left_out=left_out,
        epoch=training.epochs or 0,
        steps=training.steps,
        data=training.data,
        **inputs(run, config),
    )
    if to == "pointcept" and shuffles_at_poolings(config):
        meta["note"] = SHUFFLES.format(config["type"])
    file: dict[str, Any] = dict(config=config)
    if to == "torch-pointcloud":
        renamed, extra, names = _for_torch_pointcloud(state, config)
        file |= dict(state_dict=renamed, **extra)
        meta["host_names"] = names
    else:
        file["state_dict"] = {f"backbone.{key}": value for key, value in state.items()}
    file["state_dict"] = {k: v.detach().clone() for k, v in file["state_dict"].items()}
    return file | {META: meta}


def backbone_config(config: Mapping[str, Any], branch: Branch) -> dict[str, Any]:
    """The config of a branch's backbone, of Python's own types, without shuffled orders."""
    model = config["model"]
    teacher = model.get("teacher_custom") or {} if branch == "teacher" else {}
    return plain(kept_orders({**model["backbone"], **teacher}))


def inputs(run: Run, backbone: Mapping[str, Any]) -> dict[str, Any]:
    """What a backbone is fed with, and as much of its run's config as feeding it takes."""
    if "in_channels" not in backbone:
        raise ValueError(f"model.backbone.in_channels is missing in {run.config_path}")
    data = dataset_config(run.config)
    transform, keys = scan_transform(data["transform"]), feature_keys(data["transform"])
    collect = dict(type="Collect", keys=("coord", "grid_coord", "segment"), feat_keys=keys)
    kept = {key: value for key, value in data.items() if key not in NOT_KEPT}
    kept["transform"] = [*transform, collect]
    names = (run.config.get("data") or {}).get("names")
    return dict(
        in_channels=int(backbone["in_channels"]),
        feat_keys=tuple(keys),
        grid_size=grid_size(transform),
        config=plain(
            dict(
                seed=run.seed,
                model=dict(backbone=backbone),
                data=dict(train=kept, **({"names": names} if names else {})),
            )
        ),
    )


def _for_torch_pointcloud(
    state: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    """State dict by the library's names, how to build its model, and host names by library's."""
    from dos_plugin.runs import torch_pointcloud

    name, kwargs = torch_pointcloud.constructor(config)
    names = torch_pointcloud.library_names(state, name)
    renamed = {names[key]: state[key] for key in state if key in names}
    load_strictly(torch_pointcloud.build(name, kwargs), renamed, "the exported file")
    return renamed, dict(constructor=name, kwargs=kwargs), {v: k for k, v in names.items()}


def write(file: Mapping[str, Any], path: Path) -> None:
    """Write the file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda partial: torch.save(dict(file), partial))


def write_hub(run: Run, file: Mapping[str, Any], folder: Path, overwrite: bool = False) -> None:
    """Write a folder for the Hugging Face Hub: safetensors, config and model card.

    Args:
        run: that the file was made from.
        file: of :func:`export` to ``hub``.
        folder: made where it is missing.
        overwrite: replace its files.

    Raises:
        FileExistsError: it holds such files.
        ModuleNotFoundError: the extra ``hub`` is not installed.
    """
    branch: Branch = file[META]["branch"]
    card = model_card(Encoder(run, branch), __version__, probe_figures(run, branch))
    write_folder(folder, file, card, overwrite)


EXAMPLES = """examples:
  dos-plugin export exp/dos/demo --to pointcept --out backbone.pth
  dos-plugin export exp/dos/demo --to hub --out hub/dos-demo"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin export``."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "checkpoint", help="a checkpoint, a run's folder, or an exported file or folder"
    )
    parser.add_argument(
        "--to",
        required=True,
        choices=FORMATS,
        help="whose names and model; hub: a folder for the Hugging Face Hub",
    )
    parser.add_argument("-o", "--out", required=True, type=Path, help="file, or folder, to write")
    parser.add_argument(
        "--branch",
        choices=("student", "teacher", "segmentor"),
        help="whose backbone; default: the student's of a pretraining, else the only one",
    )
    parser.add_argument("--config", help="config of the run, if it is not in the run's folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of a folder")


def main(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin export``."""
    import dos_plugin.register  # noqa: F401

    found = open_run(args.checkpoint, args.config)
    if found.checkpoint and args.out.exists() and args.out.samefile(found.checkpoint):
        raise ValueError(f"--out: {args.out} is the checkpoint itself, expected another place")
    file = export(found, args.to, args.branch)
    if args.to == "hub":
        write_hub(found, file, args.out, args.overwrite)
    else:
        write(file, args.out)
    meta, state = file[META], file["state_dict"]
    size = sum(value.numel() * value.element_size() for value in state.values())
    print(
        f"{args.out}: {file['config']['type']}, {meta['branch']} of {found.checkpoint} "
        f"({meta['kind']}, epoch {meta['epoch']}), {len(state)} tensors, {size / 2**20:.1f} MiB"
    )
    print(
        f"input: {', '.join(meta['feat_keys'])} (in_channels={meta['in_channels']}) of voxels of "
        f"{meta['grid_size']:g} m"
    )
    if args.to == "hub":
        print(f"fill in the license in {args.out / CARD}, then: hf upload OWNER/NAME {args.out}")
        print(f"in Python: dos_plugin.load({str(args.out)!r}), or dos_plugin.load('OWNER/NAME')")
    elif args.to == "pointcept":
        print(
            f"in a segmentation config with the same model.backbone: weight={str(args.out)!r}, "
            'with dict(type="CheckpointLoader") or dict(type="PretrainedLoader")'
        )
        if "note" in meta:
            print(f"note: {meta['note']}")
    else:
        print(f"model: {file['constructor']}(**kwargs), kwargs are in the file")
        if meta["left_out"]:
            print("left out: the mask token, which stands in for masked points in pretraining only")
    return 0
