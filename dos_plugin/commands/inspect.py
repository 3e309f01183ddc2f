"""``dos-plugin inspect``: print what is in a checkpoint."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dos_plugin.commands.checkpoint_info import inspect
from dos_plugin.messages import some


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin inspect``."""
    parser.add_argument("checkpoint", help="any checkpoint, or a run's folder")
    parser.add_argument("--config", help="config of the run, if it is not in the run's folder")
    parser.add_argument("--json", metavar="FILE", help="also write it to a file ('-': print it)")


def main(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin inspect``."""
    info = inspect(args.checkpoint, args.config)
    text = json.dumps(info, indent=1)
    if args.json and args.json != "-":
        Path(args.json).write_text(text)
    print(text if args.json == "-" else format_info(info))
    return 0


def format_info(info: Mapping[str, Any]) -> str:
    """The lines for the terminal."""
    rows = [("file", f"{info['file']} ({info['bytes'] / 2**20:.1f} MiB)"), ("kind", info["kind"])]
    if "exported" in info:
        made = info["exported"]
        source = f"by dos-plugin {made.get('version')} from a {made.get('kind')}"
        rows[-1] = ("kind", f"exported to {made.get('format')} {source}")
    if info["epoch"] is not None:
        kept = " (with optimizer: training can go on)" if info.get("optimizer") else ""
        rows.append(("epoch", f"{info['epoch']}{kept}"))
    rows.append(
        ("tensors", f"{info['parameters'] / 1e6:.2f} M numbers, {', '.join(info['dtypes'])}")
    )
    bad = info["not_finite"]
    rows.append(("finite", f"NO: NaN or inf in {len(bad)} tensors: {some(bad)}" if bad else "yes"))
    parts = dict(info["branches"]) or ({"backbone": info["backbone"]} if "backbone" in info else {})
    rows += [(name, _backbone_line(facts)) for name, facts in parts.items()]
    if "head_channels" in info:
        rows.append(("head", " -> ".join(map(str, info["head_channels"]))))
    if "prototypes" in info:
        count, width = info["prototypes"]
        of = " and ".join(info["prototypes_of"])
        rows.append(("prototypes", f"{count} of {width} channels ({of})"))
    if "classes" in info:
        rows.append(("classes", str(info["classes"])))
    if not parts:
        rows.append(
            ("keys", f"no backbone known here; they start with {some(info['keys_start_with'])}")
        )
    rows.append(("config", info["config"]))
    for key in ("backbone_config", "input"):
        if key in info:
            rows.append((key.replace("_config", ""), info[key]))
    if "differs" in info:
        rows.append(("DIFFERS", info["differs"]))
    rows += [("to load" if i == 0 else "", line) for i, line in enumerate(info["to_load"])]
    return "\n".join(f"{name:<12}{text}" for name, text in rows)


def _backbone_line(facts: Mapping[str, Any]) -> str:
    line = f"{facts['type']}, {facts['parameters'] / 1e6:.2f} M parameters"
    if "in_channels" in facts:
        line += f", {facts['in_channels']} channels in"
        line += f", encoder {'-'.join(map(str, facts['enc_channels']))}"
    if "dec_channels" in facts:
        line += f", decoder {'-'.join(map(str, facts['dec_channels'][::-1]))}"
    if "out_channels" in facts:
        line += f", {facts['out_channels']} channels out"
        line += "" if "dec_channels" in facts else " (all levels together)"
    return line + (", mask token" if facts.get("mask_token") else "")
