"""Writes the section "On a GPU" of docs/performance.md from the result of run.py.

    python benchmarks/gpu/table.py out/result.json

Between its markers the section is replaced as a whole; nothing in it is written by hand.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dos_plugin.whole_file import write_whole

DOCS = Path(__file__).resolve().parents[2] / "docs/performance.md"
BEGIN, END = "<!-- gpu: begin -->", "<!-- gpu: end -->"
NOTHING = (
    "**Nothing of this project was measured on a GPU yet.** `sh benchmarks/gpu/run.sh` does it in "
    "nine minutes; this section is then generated from its `result.json` by "
    "`python benchmarks/gpu/table.py`."
)

Entry = Mapping[str, Any]


def section(result: Mapping[str, Any] | None) -> str:
    """The section's text between the markers, without heading.

    Args:
        result: Content of ``result.json``; None where there is none.

    Raises:
        ValueError: If it is that of a dry run: figures of a CPU have no place there.
    """
    if result is None:
        return NOTHING
    if result["dry"]:
        raise ValueError("the result is that of a dry run on a CPU, expected one of a GPU")
    parts = [
        part
        for write in (_machine, _steps, _checks, _loss, _step, _memory, _profile, _ablation)
        for part in write(result)
    ]
    return "\n\n".join(parts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _measured(result: Mapping[str, Any], name: str) -> Entry | None:
    """A step that has left figures, also one that was cut short."""
    entry = result["steps"].get(name)
    return entry if entry and "summary" in entry else None


def _machine(result: Mapping[str, Any]) -> Iterator[str]:
    machine = result.get("machine") or {}
    words = [f"{machine.get('gpu')}", f"torch {machine.get('torch')}"]
    words += [f"Python {machine.get('python')}", f"commit {machine.get('commit')}"]
    yield f"Machine: {', '.join(words)}. Made by `sh benchmarks/gpu/run.sh`."


def _steps(result: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (name, entry["status"], entry.get("seconds"), entry.get("reason", ""))
        for name, entry in result["steps"].items()
    ]
    yield _table(("step", "status", "seconds", "why"), rows)


def _checks(result: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (name, value)
        for step in ("method", "networks", "ranks")
        if (entry := _measured(result, step))
        for name, value in entry["summary"]["figures"].items()
        if not isinstance(value, list)
    ]
    if rows:
        yield "Correctness, against float64 on the CPU where a figure is an error:"
        yield _table(("check", "value"), rows)
    failures = [
        f"- {step}: {failure}"
        for step in ("imports", "method", "networks", "ranks")
        if (entry := _measured(result, step))
        for failure in entry["summary"]["failures"]
    ]
    if failures:
        yield "Failed:"
        yield "\n".join(failures)


def _loss(result: Mapping[str, Any]) -> Iterator[str]:
    if not (entry := _measured(result, "loss")):
        return
    sides = [
        key.removesuffix("_s")
        for key in entry["rows"][0]
        if key.endswith("_s") and key != "floor_mkl_s"
    ]
    rows = [
        (row["n"], row["k"], side, _times(row.get(f"{side}_s"), 1e3), row.get(f"{side}_mb"),
         row.get(f"{side}_error"), _over(row.get("dense_s"), row.get(f"{side}_s")))
        for row in entry["rows"]
        for side in sides
        if row.get(f"{side}_s") is not None
    ]  # fmt: skip
    yield f"The loss, `{entry['command']}`:"
    yield _table(("N", "K", "side", "ms", "MB", "error", "faster than dense by"), rows)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def _over(value: float | None, other: float | None) -> float | None:
    return value / other if value and other else None


def _step(result: Mapping[str, Any]) -> Iterator[str]:
    for name in ("step", "step of 4 scenes"):
        if entry := _measured(result, name):
            yield f"The whole step, `{entry['command']}`:"
            columns = [row["side"] for row in entry["rows"]]
            keys = [key for key in entry["rows"][0] if key != "side"]
            yield _table(["", *columns], [[k, *(row[k] for row in entry["rows"])] for k in keys])
            yield _table(("", "value"), list(entry["summary"].items()))


def _memory(result: Mapping[str, Any]) -> Iterator[str]:
    if not (entry := _measured(result, "memory")):
        return
    columns = {
        "config": "config",
        "scenes": "scenes",
        "points": "points",
        "visible": "visible",
        "peak_gb": "peak, GB",
        "estimate_gb": "estimate in its header, GB",
        "step_s": "step, s",
        "points_per_s": "points a second",
        "too_many_scenes": "did not fit with scenes",
    }
    rows = [[row.get(key) for key in columns] for row in entry["rows"]]
    yield f"Steps of the shipped configs, {entry['summary']['attention']}:"
    yield _table(list(columns.values()), rows)


def _profile(result: Mapping[str, Any]) -> Iterator[str]:
    if not (entry := _measured(result, "profile")):
        return
    rows = [(f"`{r['kernel']}`", r["ms"], 100 * r["share"], r["calls"]) for r in entry["rows"]]
    summary = entry["summary"]
    yield (
        f"Kernels that take the time of a step of {summary['config']}, {summary['step_s']:.3g} s "
        f"under the profiler, {summary['busy_s']:.3g} s of them in kernels:"
    )
    yield _table(("kernel", "ms", "%", "calls"), rows)


def _ablation(result: Mapping[str, Any]) -> Iterator[str]:
    if not (entry := _measured(result, "ablation")):
        return
    rows = [
        (
            row["name"],
            row["miou"],
            row["miou_std"],
            ", ".join(f"{s:.1f}" for s in row["miou_seeds"]),
        )
        for row in entry["rows"]
    ]
    yield f"Rows of the ablation, {entry['summary']['epochs']} epochs, linear probe:"
    yield _table(("row", "mIoU", "deviation", "seeds"), rows)


def main() -> None:
    """Replace the section."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("result", nargs="?", type=Path, help="default: there is none")
    options.add_argument("--docs", type=Path, default=DOCS, help="default %(default)s")
    args = options.parse_args()
    text = args.docs.read_text(encoding="utf-8")
    head, found, rest = text.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not (found and ended):
        options.error(f"{args.docs}: no {BEGIN} … {END}")
    try:
        made = section(json.loads(args.result.read_text()) if args.result else None)
    except ValueError as error:
        options.error(f"{args.result}: {error}")
    whole = f"{head}{BEGIN}\n\n{made}\n\n{END}{tail}"
    write_whole(args.docs, lambda path: path.write_text(whole, encoding="utf-8"))


if __name__ == "__main__":
    main()
