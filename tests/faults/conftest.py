"""How often faults are tried, and the table that ends the run.

``make faults`` tries them as often as docs/reliability.md says (DOS_FAULTS=full), ``make test`` a
few times.
"""

import os

import pytest

FULL = os.environ.get("DOS_FAULTS") == "full"


@pytest.fixture
def times():
    """Number of tries: ``times(30)`` in a full run, else a tenth of it."""
    return lambda full: full if FULL else max(1, full // 10)


@pytest.fixture
def survived(record_property):
    """Notes a row of the table: ``survived(fault, tried, lost)``, lost in optimizer steps."""
    return lambda fault, tried=1, lost=0: record_property("fault", [fault, tried, lost])


def pytest_terminal_summary(terminalreporter):
    rows: dict[str, list[int]] = {}  # fault: tried, survived, lost at most
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []):
                if name == "fault":
                    row = rows.setdefault(value[0], [0, 0, 0])
                    row[0] += value[1]
                    row[1] += value[1] * (outcome == "passed")
                    row[2] = max(row[2], value[2])
    if not rows:
        return
    write = terminalreporter.write_line
    write("")
    write("| fault | times tried | survived | lost at most, steps |")
    write("| --- | --- | --- | --- |")
    for fault, row in rows.items():
        write("| " + " | ".join([fault, *map(str, row)]) + " |")
