"""Writes docs/reference/*.md out of docstrings, signatures and the parsers of the commands.

Usage: ``python docs/reference.py [FOLDER]``
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from griffe import Docstring, DocstringSectionKind

ROOT = Path(__file__).parents[1]
BY = (
    "<!-- Written by docs/reference.py: change the docstrings or parsers, then run `make docs`. -->"
)
# Options that no config sets, since the code that builds the class does.
GIVEN = {"head of DOS-v1m1": ["in_channels"], "DetectionTester": ["cfg"]}


def main(folder: Path) -> None:
    """Write the pages into a folder."""
    os.environ["DOS_HOST"] = "minihost"  # the base classes are imported with the components
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**component_pages(), "commands": commands_page()}.items():
        (folder / f"{name}.md").write_text(text)


# -- components ------------------------------------------------------------------------------


def component_pages() -> dict[str, str]:
    """Page by name, of all that ``dos_plugin.register`` enters into the host's registries.

    Raises:
        ValueError: If the docstring of a class and its signature do not name the same options.
    """
    from dos_plugin.detection.grid import DetectionGrid
    from dos_plugin.method import ProjectionHead
    from dos_plugin.register import COMPONENTS

    parts = {
        "head of DOS-v1m1": ProjectionHead,
        **COMPONENTS["MODULES"],
        "grid of DOS-CenterPoint-v1m1": DetectionGrid,
    }
    return {
        "models": page(
            "Models",
            'Options of `model=dict(type="…", …)`, and of the dicts inside it.',
            {**COMPONENTS["MODELS"], **parts},
        ),
        "transforms": page(
            "Transforms",
            'Options of `dict(type="…", …)` in `data.train.transform` and the like; the keys of a '
            "scene that they read and write are the host's.",
            COMPONENTS["TRANSFORMS"],
        ),
        "hooks": page(
            "Hooks",
            'Options of `dict(type="…", …)` in `hooks`, in the order that '
            "[reliability](../reliability.md) and the shipped configs show.",
            COMPONENTS["HOOKS"],
        ),
        "datasets": page(
            "Data sets and testers",
            'Options of `data.train=dict(type="…", …)` and the like, and of `test`.',
            {**COMPONENTS["DATASETS"], **COMPONENTS["TESTERS"]},
        ),
    }


def page(title: str, about: str, classes: dict[str, type]) -> str:
    """A page of classes by the names that a config calls them."""
    blocks = [f"# {title}", BY, about]
    for name, cls in classes.items():
        blocks += [f"## {name}", *component(name, cls)]
    return "\n\n".join(blocks) + "\n"


def component(name: str, cls: type) -> Iterator[str]:
    """Text, table of options and place of a class, block by block."""
    sections = Docstring(inspect.getdoc(cls) or "").parse(
        "google", warnings=False, warn_unknown_params=False
    )
    told = {}
    for section in sections:
        if section.kind is DocstringSectionKind.text:
            yield plain(section.value)
        elif section.kind in (DocstringSectionKind.parameters, DocstringSectionKind.attributes):
            told = {option.name: option.description for option in section.value}
    told.pop("**kwargs", None)
    known, host = options(cls)
    for option in GIVEN.get(name, ()):
        del known[option], told[option]
    if told.keys() != known.keys():
        differ = ", ".join(sorted(told.keys() ^ known.keys()))
        raise ValueError(f"{name}: docstring and signature of {cls.__name__} differ in {differ}")
    if known:
        rows = [
            (f"`{option}`", type_of(parameter), default(parameter), line(told[option]))
            for option, parameter in known.items()
        ]
        yield table(("option", "type", "default", "meaning"), rows)
    if host:
        yield f"Further options: those of the host's `{host}`."
    elif not known:
        yield "No options."
    place = Path(inspect.getfile(cls)).relative_to(ROOT).as_posix()
    yield f"Source: [{place}](../../{place})"


def options(cls: type) -> tuple[dict[str, inspect.Parameter], str]:
    """Options of a class by name, and the class of the host that takes further ones, if any."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if base.__module__.startswith("dos_plugin.minihost."):
            return found, base.__name__
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base, eval_str=True).parameters.values())
        more = [p for p in parameters if p.kind is p.VAR_KEYWORD]
        found |= {p.name: p for p in parameters if p not in more}
        if not more:
            break
    return found, ""


def type_of(parameter: inspect.Parameter) -> str:
    """Type of an option as a reader writes it."""
    text = inspect.formatannotation(parameter.annotation)
    text = re.sub(r"\b(collections\.abc|typing)\.", "", text)
    text = re.sub(r"Literal\[(.*?)\]", lambda m: m[1].replace(", ", " | "), text)
    text = re.sub(r"Union\[(\w+), (.*)\]$", r"\1 | \2", text)
    return f"`{text}`".replace(" | ", " or ").replace("'", '"')


def default(parameter: inspect.Parameter) -> str:
    """Default of an option."""
    if parameter.default is parameter.empty:
        return "required"
    return f"`{parameter.default!r}`".replace("'", '"')


# -- commands --------------------------------------------------------------------------------


def commands_page() -> str:
    """All commands: what it does, examples, arguments."""
    from dos_plugin import cli
    from dos_plugin.cpu.__main__ import USAGE
    from dos_plugin.detection.openpcdet import convert
    from dos_plugin.detection.openpcdet.__main__ import HELP
    from dos_plugin.minihost import launch

    blocks = [
        "# Commands",
        BY,
        "What `COMMAND --help` says. With `DOS_TRACEBACK=1` an error shows where it came from.",
    ]
    for name in cli.COMMANDS:
        blocks += command(cli.command_parser(name))
    for module in (launch, convert):
        blocks += command(module.make_parser())
    for name, text in (("cpu", USAGE), ("detection.openpcdet", HELP)):
        blocks += [f"## python -m dos_plugin.{name}", f"```text\n{text.strip()}\n```"]
    return "\n\n".join(blocks) + "\n"


def command(parser: argparse.ArgumentParser) -> Iterator[str]:
    """What a parser knows, block by block."""
    yield f"## {parser.prog}"
    yield parser.description or ""
    yield f"```sh\n{examples(parser)}\n```"
    rows = []
    for action in parser._actions:
        if action.dest == "help":
            continue
        names = " ".join(f"`{name}`" for name in action.option_strings)
        value = action.metavar or (None if action.choices else action.dest.upper())
        if action.choices:
            value = " or ".join(map(str, action.choices))
        value = str(value).replace("|", " or ")
        if action.nargs != 0:
            names += f" `{value}`" if action.nargs in (None, "?") else f" `{value} …`"
        plain = action.default in (None, argparse.SUPPRESS, []) or action.default is False
        value = action.default
        if isinstance(value, list):
            value = " ".join(map(str, value))
        required = action.required and action.nargs != "*"
        given = "required" if required else "" if plain else f"`{value}`"
        meaning = (action.help or "") % {**vars(action), "prog": parser.prog}
        rows.append((names.strip(), given, line(meaning)))
    yield table(("argument", "default", "meaning"), rows)


def examples(parser: argparse.ArgumentParser) -> str:
    """The examples of a parser: the indented lines of its epilog."""
    lines = (parser.epilog or "").splitlines()
    return textwrap.dedent("\n".join(text for text in lines if text.startswith("  ")))


# -- Markdown --------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Docstring to Markdown: roles and double backticks are code."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


def line(text: str) -> str:
    """The same as one cell of a table."""
    return " ".join(plain(text).split()).replace("|", "\\|")


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines: list[Any] = [head, ["---"] * len(head), *rows]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return re.sub(r"\|  (?=\|)", "| ", text)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "reference")
