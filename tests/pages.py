"""Code blocks of the pages, and the commands in them."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("cd", "dos-plugin", "make", "pip", "python", "sh", "git", "export")


def blocks(name: str) -> list[tuple[str, str]]:
    """Language and text of the code blocks of a page; those without one that start with a program
    are of a shell."""
    found = []
    for indent, language, text in FENCE.findall((ROOT / name).read_text()):
        text = re.sub(f"^{indent}", "", text, flags=re.MULTILINE)
        first = re.sub(r"^(\w+=\S* )*", "", text).split(maxsplit=1)
        if language == "bash" or (not language and first and first[0] in PROGRAMS):
            language = "sh"
        found.append((language, text))
    return found


def commands(text: str) -> list[tuple[dict[str, str], list[str]]]:
    """The commands of a shell block: the variables in front, and the words."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        variables = {}
        while words and re.match(r"\w+=", words[0]):
            name, _, variables[name] = words.pop(0).partition("=")
        found.append((variables, words))
    return found
