"""A checkpoint of a pretraining to a file for the host's ``--pretrained_model``.

The host loads what fits by name and shape and is silent about the rest. Here everything fits, or no
file is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dos_plugin.detection.load import LoadReport
from dos_plugin.detection.openpcdet.backbone import DOSBackbone3D
from dos_plugin.detection.openpcdet.checkout import add_checkout, import_host
from dos_plugin.detection.openpcdet.vfe import DOSVFE
from dos_plugin.messages import one_line, some
from dos_plugin.models.backbone import Branch
from dos_plugin.whole_file import write_whole

PREFIX = "backbone_3d.backbone."  # the backbone's entries in a detector of the host


def read_config(cfg_file: str | Path) -> Mapping[str, Any]:
    """A YAML as the host reads it; its ``_BASE_CONFIG_`` is relative to the working directory.

    Raises:
        FileNotFoundError: If it or one that it stands on is not there.
        ImportError: If the host cannot be imported.
    """
    add_checkout(Path.cwd())
    host = import_host("pcdet.config")
    try:
        return host.cfg_from_yaml_file(str(cfg_file), host.EasyDict())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error.filename}: no such file (working directory {Path.cwd()}); the host's configs "
            "want the checkout's tools as working directory"
        ) from error


def backbone_of(config: Mapping[str, Any]) -> DOSBackbone3D:
    """The backbone of a detector's config, with random weights.

    Raises:
        ValueError: If it is another one.
    """
    data, model = config["DATA_CONFIG"], config["MODEL"]
    name = model["BACKBONE_3D"]["NAME"]
    if name != "DOSBackbone3D":
        raise ValueError(f"MODEL.BACKBONE_3D.NAME: {name}, expected DOSBackbone3D")
    (size,) = (step["VOXEL_SIZE"] for step in data["DATA_PROCESSOR"] if "VOXEL_SIZE" in step)
    grid = dict(voxel_size=size, point_cloud_range=data["POINT_CLOUD_RANGE"], grid_size=None)
    features = len(data["POINT_FEATURE_ENCODING"]["used_feature_list"])
    if model["VFE"]["NAME"] == "DOSVFE":
        features = DOSVFE(model["VFE"], features, **grid).get_output_feature_dim()
    return DOSBackbone3D({**model["BACKBONE_3D"], "CHECKPOINT": None}, features, **grid)


def convert(
    checkpoint: str | Path, config: Mapping[str, Any], output: Path, branch: Branch | None = None
) -> LoadReport:
    """Write the backbone of a checkpoint under the names of a detector.

    Args:
        checkpoint: A DOS pretraining, a segmentation run or an export.
        config: The detector's.
        output: The file to write.
        branch: Whose backbone; None for the config's.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it does not fit completely.
    """
    detector = backbone_of(config)
    report = detector.load(str(checkpoint), branch)
    own = detector.backbone.state_dict()
    state = {f"{PREFIX}{name}": own[name].clone() for name in report.matched}
    write_whole(output, lambda path: torch.save({"model_state": state}, path))
    return report


EXAMPLES = """examples:
  python -m dos_plugin.detection.openpcdet.convert model_last.pth \\
      --cfg_file cfgs/dos/objdet-dos-v1m1-3a-kitti-ft.yaml -o dos.pth"""


def make_parser() -> argparse.ArgumentParser:
    """The options of ``python -m dos_plugin.detection.openpcdet.convert``."""
    parser = argparse.ArgumentParser(
        prog="python -m dos_plugin.detection.openpcdet.convert",
        description="Write the backbone of a DOS checkpoint as a file for --pretrained_model of "
        "OpenPCDet's train.py. Run it in the checkout's tools, as train.py.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", help="a DOS pretraining, a segmentation run or an export")
    parser.add_argument("--cfg_file", required=True, help="the detector's YAML")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the file to write")
    parser.add_argument(
        "--branch", choices=("student", "teacher", "segmentor"), help="instead of the YAML's BRANCH"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """``python -m dos_plugin.detection.openpcdet.convert``."""
    args = make_parser().parse_args(argv)
    try:
        report = convert(args.checkpoint, read_config(args.cfg_file), args.output, args.branch)
    except (ImportError, KeyError, OSError, ValueError) as error:
        raise SystemExit(one_line(error)) from error
    print(report.source)
    for what in ("matched", "missing", "unexpected"):
        names = getattr(report, what)
        listed = f": {some(names)}" if names and what != "matched" else ""
        print(f"{what:>10} {len(names)}{listed}")
    if report.inflated:
        print(f"{report.inflated} has new input channels of zeros")
    print(f"{args.output}: {len(report.matched)} entries named {PREFIX}*")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
