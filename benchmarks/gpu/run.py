"""All that shall be known of the library on a GPU, step by step, into one file.

    python benchmarks/gpu/run.py --out out            # on a GPU, nine minutes
    python benchmarks/gpu/run.py --out out --dry      # in small on a CPU

Every step is a process of its own with its own time limit. Its result is in `result.json` as soon
as it ends, so that a run that is cut short leaves what it had; a step that fails stops no other
one. `result.json`: machine, and by step `status` (ok, failed, timeout, skipped), `seconds`,
`command`, what the step measured, and for what went wrong the end of its output. The full output
is in `log.txt` beside it. Leaves with status 1 if a step did not end well.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from dos_plugin.cpu.checkout import find_pointcept  # noqa: E402
from dos_plugin.runs.training import write_notes  # noqa: E402

MINUTES = 8.8  # and some seconds to unpack
TAIL = 3000  # characters of the output of what went wrong
LEAST = 10.0  # seconds without which a step is not begun

# Compiled packages of the real host that a machine without a compiler for them lacks, and what it
# imports at its start and these runs never call.
STAND_INS = "torch_scatter,torch_cluster,pointops,wandb,open3d,SharedArray,transformers,peft"

# Plain attention keeps a square of the patch for each head, so patches are small.
PLAIN_ATTENTION = ["--no-flash", "--patch-size", "128"]


@dataclass(frozen=True)
class Step:
    """A process.

    Attributes:
        name: of the step.
        command: what follows the interpreter; ``--json PATH`` is added.
        dry: the same for a dry run.
        limit: seconds.
        needs: "spconv", "host", "real" (scans): skipped where it is not there.
        group: steps of a group go one after the other; a dry run works on two groups at a time.
        instead_of: runs only where that step did not end well.
    """

    name: str
    command: list[str]
    dry: list[str]
    limit: float
    needs: tuple[str, ...] = ()
    group: int = 0
    instead_of: str | None = None


def steps() -> list[Step]:
    """All of them, in order."""

    def own(script: str, *words: str) -> list[str]:
        return [f"benchmarks/gpu/{script}.py", *words]

    def check(name: str, limit: float, *words: str, needs: tuple[str, ...] = ()) -> Step:
        words = words or (name,)
        return Step(name, own("checks", *words), own("checks", *words, "--dry"), limit, needs)

    def host(name: str, limit: float, *needs: str) -> Step:
        words = own("host_runs", name)
        return Step(name, words, [*words, "--dry"], limit, ("spconv", "host", *needs), 1)

    loss = ["benchmarks/loss.py", "--more-prototypes", "--precision", "high"]
    kernels = ("plain", "triton")
    whole_step = ["benchmarks/step.py", *PLAIN_ATTENTION]
    views = ["--columns", "1080", "--repeats", "3"]  # about the points of a nuScenes scan
    small = ["--widths", "small", "--columns", "200", "--max-size", "500", "--repeats", "1"]
    small += ["--no-memory"]
    beside = ("spconv", "host")
    sizes = ["--sizes", "40000", "160000", "640000", "--dense-up-to", "640000", "--kernels"]
    tiny = ["--sizes", "300", "--prototypes", "32", "--no-compile", "--no-memory", "--repeats", "1"]
    return [
        check("imports", 60),
        check("method", 110, "method", "kernels", "waits"),
        check("networks", 130, "backbones", "scaler", "no-leak", needs=("spconv",)),
        check("ranks", 60, needs=("spconv",)),
        host("pretrain", 180),
        host("resume", 60),
        host("probe", 60),
        host("test", 45),
        host("real", 60, "real"),
        Step("loss", [*loss, *sizes, *kernels], [*loss, *tiny, "--kernels", "plain"], 130),
        Step("step", [*whole_step, *views, "--scenes", "12"], [*whole_step, *small], 90, beside),
        Step(
            "step of 4 scenes",
            [*whole_step, *views, "--scenes", "4"],
            [*whole_step, *small],
            60,
            beside,
            instead_of="step",
        ),
        Step(
            "memory",
            own("footprint", "memory"),
            own("footprint", "memory", "--dry"),
            110,
            ("spconv",),
        ),
        Step(
            "profile",
            own("footprint", "profile"),
            own("footprint", "profile", "--dry"),
            60,
            ("spconv",),
        ),
        Step("ablation", own("ablation"), own("ablation", "--dry"), 600, ("spconv",), 1),
    ]


class Run:
    """A run of steps, and its file.

    Args:
        out: folder of ``result.json`` and ``log.txt``.
        dry: on a CPU, in small.
        seconds: the whole may take.
    """

    def __init__(self, out: Path, dry: bool, seconds: float) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.file, self.log = out / "result.json", out / "log.txt"
        self.log.write_text("")
        self.dry = dry
        self.end = time.monotonic() + seconds
        self.lock = threading.Lock()
        self.result: dict[str, Any] = {"dry": dry, "steps": {}}
        self._folder = tempfile.TemporaryDirectory(prefix="dos-gpu-")  # goes with this object
        self.work = Path(self._folder.name)

    def missing(self, step: Step) -> str | None:
        """Why the step cannot run, None if it can."""
        if step.instead_of and self._status(step.instead_of) in (None, "ok", "skipped"):
            return f"only where {step.instead_of} fails"
        if "spconv" in step.needs and self._status("imports") in ("failed", "timeout"):
            return "spconv does not run here, see imports"
        if "host" in step.needs and find_pointcept() is None:
            return "no Pointcept checkout"
        if "real" in step.needs and not os.environ.get("REAL_SCENES"):
            return "no real scans were carried"
        return None

    def do_all(self, group: list[Step]) -> None:
        """Run steps one after the other."""
        for step in group:
            self.do(step)

    def _status(self, name: str) -> str | None:
        return self.result["steps"].get(name, {}).get("status")

    def do(self, step: Step) -> None:
        """Run a step and write what came of it."""
        left = self.end - time.monotonic()
        why = self.missing(step) or ("no time is left" if left < LEAST else None)
        if why is not None:
            self.note(step.name, {"status": "skipped", "reason": why})
            return
        answer = self.work / f"{step.name.replace(' ', '-')}.json"
        words = [*(step.dry if self.dry else step.command), "--json", str(answer)]
        limit = left if self.dry else min(step.limit, left)
        start = time.monotonic()
        status, output = self.call([sys.executable, *words], limit)
        entry: dict[str, Any] = {
            "status": status,
            "seconds": round(time.monotonic() - start, 1),
            "command": shlex.join(["python", *words[:-2]]),
        }
        if answer.is_file():
            found = json.loads(answer.read_text())
            self.result.setdefault("machine", found.get("machine"))
            entry |= {"rows": found["rows"], "summary": found["summary"]}
        if status != "ok":
            entry["output"] = output[-TAIL:]
            entry["reason"] = (output.strip().splitlines() or [""])[-1][:200]
        with self.lock, self.log.open("a") as log:
            log.write(f"== {step.name}: {status}\n$ {entry['command']}\n{output}\n")
        self.note(step.name, entry)

    def call(self, words: list[str], limit: float) -> tuple[str, str]:
        """Status and output of a command; its children end with it."""
        variables = {
            **os.environ,
            "DOS_GPU_WORK": str(self.work),
            "DOS_GPU_SECONDS": str(int(limit)),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        if self.dry:  # threads of two groups would wait for each other
            variables["OMP_NUM_THREADS"] = "1"
        else:
            variables["DOS_STAND_INS"] = STAND_INS
        with tempfile.TemporaryFile() as file:
            process = subprocess.Popen(
                words, cwd=ROOT, env=variables, stdout=file, stderr=file,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(limit)
                status = "ok" if code == 0 else "failed"
            except subprocess.TimeoutExpired:
                status = "timeout"
            finally:  # also workers that a dead parent left behind
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()
            file.seek(0)
            return status, file.read().decode(errors="replace")

    def note(self, name: str, entry: dict[str, Any]) -> None:
        """Put a result into the file."""
        with self.lock:
            self.result["steps"][name] = entry
            write_notes(self.file, self.result)
            said = entry.get("reason") or f"{entry['seconds']:.0f} s"
            print(f"{name}: {entry['status']} ({said})", flush=True)


def main() -> int:
    """Run the steps."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--dry", action="store_true", help="in small on a CPU")
    options.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "out"))
    options.add_argument("--only", help="names of steps with commas between; default: all")
    options.add_argument("--minutes", type=float, help=f"default {MINUTES:g}, dry 30")
    args = options.parse_args()
    todo = steps()
    if args.only:
        names = args.only.split(",")
        known = [step.name for step in todo]
        if unknown := [name for name in names if name not in known]:
            options.error(f"--only: no step {', '.join(unknown)}; there are {', '.join(known)}")
        todo = [step for step in todo if step.name in names]
    run = Run(args.out, args.dry, 60 * (args.minutes or (30 if args.dry else MINUTES)))
    groups = [[s for s in todo if s.group == g] for g in (0, 1)] if args.dry else [todo]
    with ThreadPoolExecutor(len(groups)) as pool:
        for future in [pool.submit(run.do_all, group) for group in groups]:
            future.result()
    ended = {name: entry["status"] for name, entry in run.result["steps"].items()}
    print(f"{run.file}: {sum(s == 'ok' for s in ended.values())} of {len(ended)} steps went well")
    return any(status in ("failed", "timeout") for status in ended.values())


if __name__ == "__main__":
    sys.exit(main())
