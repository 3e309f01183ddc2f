"""``dos-plugin configs``: the configs that travel with the package."""

from __future__ import annotations

import argparse

from dos_plugin.shipped import config_path, configs_dir, find_configs, install_configs

EXAMPLES = """examples:
  dos-plugin configs nuscenes linear
  dos-plugin configs --install ."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin configs``."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="list only configs with every WORD in name, data set, backbone, host or task: "
        "nuscenes linear",
    )
    parser.add_argument("--path", metavar="NAME", help="print the path of one config and stop")
    parser.add_argument(
        "--install", metavar="DIR", help="link those of Pointcept into configs/dos of its checkout"
    )
    parser.add_argument("--copy", action="store_true", help="with --install: copy, do not link")


def main(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin configs``."""
    if args.words and (args.path or args.install or args.copy):
        raise ValueError(
            f"{' '.join(args.words)}: words choose what is listed, give them without --path, "
            "--install and --copy"
        )
    if args.path:
        print(config_path(args.path))
        return 0
    if args.install:
        count, folder = install_configs(args.install, args.copy)
        print(f"{'copied' if args.copy else 'linked'} {count} files into {folder}")
        print("run one from there: sh scripts/train.sh -d dos -c CONFIG -n NAME -g GPUS")
        return 0
    if args.copy:
        raise ValueError("--copy needs --install DIR")
    rows = [("config", "dataset", "backbone", "host", "task")]
    rows += [config.row for config in find_configs(args.words)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print(f"\nin {configs_dir()}; rows of the ablation in its folder ablation")
    return 0
