"""The command ``dos-plugin``.

Only the chosen command's module is imported, so that ``--help`` and ``configs`` need nothing
beyond Python's own library.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

# A command is the module ``dos_plugin.commands.<name>`` with ``add_arguments(parser)`` and
# ``main(args) -> int``; its examples are the parser's epilog, docs/reference.py shows them, too.
COMMANDS = {
    "demo": "make scenes, pretrain, probe and report, all in one",
    "scenes": "make synthetic LiDAR streets, labels and boxes",
    "ingest": "bring your own scans into the host's layout",
    "density": "show what grid sizes mean for your scans",
    "train": "train a config with the embedded host",
    "probe": "linear and kNN probe of frozen features",
    "features": "features of your scans, as files",
    "export": "the backbone of a checkpoint, for other programs",
    "inspect": "show what is in a checkpoint",
    "view": "turn scans around in a browser, with their features",
    "boxes": "draw boxes on scans: true ones and those of a detector",
    "report": "write the HTML report of a run",
    "ablate": "train and probe a row of configs, several seeds each",
    "split": "choose a fraction of the training scans, for few labels",
    "configs": "list, locate or install the shipped configs",
    "doctor": "show what is missing here and how to mend it",
}

# Modules of extras; any other missing module is a bug and keeps its traceback.
DEMO_EXTRA = {
    "jinja2",
    "lzf",
    "matplotlib",
    "mmengine",
    "PIL",
    "plyfile",
    "psutil",
    "scipy",
    "spconv",
    "tensorboardX",
    "torch_pointcloud",
    "tqdm",
    "yaml",
}
OTHER_EXTRAS = {
    **dict.fromkeys(("huggingface_hub", "safetensors"), "hub"),
    **{"laspy": "las", "lazrs": "las", "pyarrow": "argoverse", "rosbags": "ros"},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (2 for wrong usage or input, 130 for Ctrl-C,
    141 for a closed pipe)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    try:
        parser = _parser(chosen)
        args = parser.parse_args(argv)
        if args.command is None:
            parser.print_help()
            return 2
        status = _module(args.command).main(args)
        sys.stdout.flush()
        return status
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        extra = "demo" if missing in DEMO_EXTRA else OTHER_EXTRAS.get(missing)
        if extra is None:
            raise
        return _fail(
            chosen,
            f"needs the package {missing!r}, which the extra {extra!r} brings: "
            f"pip install 'dos-plugin[{extra}]'",
        )
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 141
    except (ValueError, OSError) as error:
        if os.environ.get("DOS_TRACEBACK"):
            raise
        return _fail(chosen, f"error: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the lines of the examples; shows defaults, but not that an option is off or absent."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        plain = action.default is None or action.default is False or action.default == []
        return action.help if plain else super()._get_help_string(action)


class _Versions(argparse.Action):
    """Looks them up when they are asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        found = importlib.import_module("dos_plugin.commands.doctor.versions").versions()
        print("\n".join(f"{name:<11}{text}" for name, text in found.items()))
        parser.exit()


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser; only the chosen command's options are filled in."""
    parser = argparse.ArgumentParser(
        prog="dos-plugin",
        description="DOS self-supervised pretraining of 3D backbones, as a plugin for Pointcept.",
        epilog="Start with: dos-plugin demo. DOS_TRACEBACK=1 shows where an error came from.",
    )
    parser.add_argument("--version", nargs=0, action=_Versions, help="show versions and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=text, formatter_class=_Help)
        if name == chosen:
            _fill(subparser, name)
    return parser


def command_parser(command: str) -> argparse.ArgumentParser:
    """The parser of a command by itself, for the reference."""
    parser = argparse.ArgumentParser(prog=f"dos-plugin {command}", formatter_class=_Help)
    _fill(parser, command)
    return parser


def _fill(parser: argparse.ArgumentParser, command: str) -> None:
    text = COMMANDS[command]
    parser.description = f"{text[0].upper()}{text[1:]}."
    _module(command).add_arguments(parser)


def _module(command: str) -> Any:
    return importlib.import_module(f"dos_plugin.commands.{command}")


def _fail(command: str | None, message: str) -> int:
    name = f"dos-plugin {command}" if command in COMMANDS else "dos-plugin"
    print(f"{name}: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
