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
from typing import NamedTuple

from dos_plugin import __version__


class Command(NamedTuple):
    """A subcommand: a module with ``add_arguments(parser)`` and ``run(args) -> int``."""

    module: str
    help: str


COMMANDS = {
    "demo": Command("dos_plugin.demo", "make scenes, pretrain, probe and report, all in one"),
    "scenes": Command("dos_plugin.scenes.cli", "make synthetic LiDAR streets, labels and boxes"),
    "ingest": Command("dos_plugin.ingest", "bring your own scans into the host's layout"),
    "density": Command("dos_plugin.density", "show what grid sizes mean for your scans"),
    "train": Command("", "train a config with the embedded host"),
    "probe": Command("dos_plugin.compare", "linear and kNN probe of frozen features"),
    "export": Command("dos_plugin.export", "the backbone of a checkpoint, for other programs"),
    "inspect": Command("dos_plugin.inspect_cli", "show what is in a checkpoint"),
    "report": Command("dos_plugin.report", "write the HTML report of a run"),
    "ablate": Command("dos_plugin.ablate", "train and probe a row of configs, several seeds each"),
    "split": Command("dos_plugin.split", "choose a fraction of the training scans, for few labels"),
    "configs": Command("dos_plugin.shipped", "list, locate or install the shipped configs"),
    "doctor": Command("dos_plugin.doctor", "show what is missing here and how to mend it"),
}

# Modules of the [demo] extra; any other missing module is a bug and keeps its traceback.
DEMO_EXTRA = {
    "jinja2",
    "matplotlib",
    "mmengine",
    "PIL",
    "plyfile",
    "pypcd4",
    "scipy",
    "spconv",
    "tensorboardX",
    "torch_pointcloud",
    "tqdm",
    "yaml",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (2 for wrong usage or input, 130 for Ctrl-C,
    141 for a closed pipe)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    try:
        if chosen == "train" and argv[0] == "train":
            return _train(argv[1:])
        parser = _parser(chosen)
        args = parser.parse_args(argv)
        if args.command is None:
            parser.print_help()
            return 2
        status = importlib.import_module(COMMANDS[args.command].module).run(args)
        sys.stdout.flush()
        return status
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in DEMO_EXTRA:
            raise
        return _fail(
            chosen,
            f"needs the package {missing!r}, which the extra 'demo' brings: "
            "pip install 'dos-plugin[demo]'",
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


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not that an option is off or absent by default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        plain = action.default is None or action.default is False
        return action.help if plain else super()._get_help_string(action)


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser; only the chosen command's options are filled in."""
    parser = argparse.ArgumentParser(
        prog="dos-plugin",
        description="DOS self-supervised pretraining of 3D backbones, as a plugin for Pointcept.",
        epilog="Start with: dos-plugin demo. DOS_TRACEBACK=1 shows where an error came from.",
    )
    parser.add_argument("--version", action="version", version=f"dos-plugin {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            formatter_class=_Help,
        )
        if name == chosen and command.module:
            importlib.import_module(command.module).add_arguments(subparser)
    return parser


def _train(argv: list[str]) -> int:
    """Hand all options to ``python -m dos_plugin.minihost``, which has the host's own ones."""
    import runpy

    sys.argv = ["dos-plugin train", *argv]
    runpy.run_module("dos_plugin.minihost", run_name="__main__", alter_sys=True)
    return 0


def _fail(command: str | None, message: str) -> int:
    name = f"dos-plugin {command}" if command in COMMANDS else "dos-plugin"
    print(f"{name}: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
