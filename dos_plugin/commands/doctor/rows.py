"""Rows of the doctor's table."""

import textwrap
from collections.abc import Iterable
from typing import Literal, NamedTuple

Status = Literal["ok", "warn", "missing"]


class Row(NamedTuple):
    """One finding.

    Attributes:
        status: ``missing`` means that training cannot start.
        item: what was looked at.
        found: what is there.
        mend: command or change that helps; empty where nothing is wrong.
    """

    status: Status
    item: str
    found: str
    mend: str = ""


def table(rows: Iterable[Row]) -> str:
    """The rows as text, what mends a row below it."""
    lines = []
    for row in rows:
        found = textwrap.wrap(row.found, 90, break_long_words=False, break_on_hyphens=False)
        first, *more = found or ["-"]
        lines.append(f"{row.status:<8} {row.item:<17} {first}")
        lines += [" " * 27 + line for line in more]
        if row.mend:
            lines += [" " * 27 + f"-> {line}" for line in row.mend.splitlines()]
    return "\n".join(lines)
