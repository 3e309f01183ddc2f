"""Every page, as a forge shows it: links and their anchors lead somewhere, code blocks can be read,
and the commands in them take the arguments that stand there."""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("spconv", reason="the embedded host needs the extra 'demo'")

from dos_plugin import cli
from dos_plugin.minihost import launch
from tests.pages import FENCE, ROOT, blocks, commands

PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob(".github/**/*.md"))
)
pytestmark = pytest.mark.skipif(not PAGES, reason="needs the source tree")


def anchors(page: Path) -> set[str]:
    """Anchors of the headings: lower case, punctuation left out, "-" for each blank; -1 for the
    second of a name."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip()).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
        if found[name]:
            found[f"{name}-{found[name]}"] = 0
    return set(found)


def test_an_anchor_is_made_as_on_a_forge(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# `a_b`: 20 % of it\n```\n# no heading\n```\n## [Two](x.md)\n## Two\n")
    assert anchors(page) == {"a_b-20--of-it", "two", "two-1"}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    text = FENCE.sub("", (ROOT / name).read_text())
    text = re.sub(r"`[^`\n]*`", "", text)
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        if re.match(r"\w+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (ROOT / name).parent / place if place else ROOT / name
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


@pytest.mark.parametrize("name", PAGES)
def test_code_can_be_read(name):
    for language, text in blocks(name):
        if language == "python":
            ast.parse(text)
        elif language == "sh":
            done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr + text


def test_commands_take_their_arguments(capsys):
    seen = set()
    for name in PAGES:
        for language, text in blocks(name):
            for _, words in commands(text) if language == "sh" else ():
                if words[:1] == ["dos-plugin"]:
                    (command, *arguments), parser = words[1:], None
                    if not command.startswith("-"):
                        parser = cli.command_parser(command)
                elif words[:3] == ["python", "-m", "dos_plugin.minihost"]:
                    command, arguments, parser = "minihost", words[3:], launch.make_parser()
                else:
                    continue
                seen.add(command)
                try:
                    parser and parser.parse_args(arguments)
                except SystemExit:
                    pytest.fail(f"{name}: {shlex.join(words)}: {capsys.readouterr().err}")
    assert {"minihost", *cli.COMMANDS} <= seen
