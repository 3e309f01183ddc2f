"""What the benchmarks share: options, the machine, timing in alternation, memory, tables, JSON.

Scripts are run as ``python benchmarks/NAME.py`` and import this file as ``common``.
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dos_plugin.cpu.checkout import find_pointcept
from dos_plugin.host import EMBEDDED

ROOT = Path(__file__).resolve().parents[1]
median = statistics.median


def parser(description: str | None, repeats: int = 7, warmup: int = 1) -> argparse.ArgumentParser:
    """Options that the benchmarks have: ``--json``, ``--repeats``, ``--warmup``, ``--seed``,
    ``--device``, ``--precision`` (taken at once).

    Args:
        description: The script's docstring.
        repeats: Default number of timed runs of a side.
        warmup: Default number of runs before them.
    """
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--json", metavar="PATH", help="also write machine, rows and summary")
    options.add_argument("--repeats", type=int, default=repeats, help="default %(default)s")
    options.add_argument("--warmup", type=int, default=warmup, help="default %(default)s")
    options.add_argument("--seed", type=int, default=0, help="default %(default)s")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options.add_argument("--device", default=device, help="default here: %(default)s")
    options.add_argument(
        "--precision",
        choices=("highest", "high"),
        default="highest",
        help="of float32 products on a GPU, see torch.set_float32_matmul_precision: high allows "
        "TF32, and with triton the fused loss; default %(default)s",
        type=_set_precision,
    )
    return options


def _set_precision(precision: str) -> str:
    torch.set_float32_matmul_precision(precision)
    return precision


def machine() -> dict[str, Any]:
    """Processor, GPU, threads, versions and git commit."""
    affinity = getattr(os, "sched_getaffinity", None)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_model(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "commit": _commit(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    """Short hash, with ``+`` where tracked files differ from it; None outside a repository."""
    try:
        hash_, changes = (
            subprocess.run(
                ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (
                ["rev-parse", "--short", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return hash_ + ("+" if changes else "")


TRAIN = "tools/train.py"
HOSTS = ("embedded", "pointcept")


def run_on_host(host: str, words: Sequence[str], log: Path) -> float:
    """Run a Python script or module on a host, its output in ``log``.

    Args:
        host: one of ``HOSTS``; Pointcept runs without CUDA where there is none.
        words: what follows ``python``; ``TRAIN`` stands for the host's train script.
        log: file to write; the program ends with its name if the command fails.

    Returns:
        CPU seconds, its children's, too; wall seconds where there is CUDA.
    """
    root, command = ROOT, [sys.executable]
    if host == "embedded":
        words = ["-m", "dos_plugin.minihost", *words[1:]] if words[0] == TRAIN else words
    else:
        found = find_pointcept()
        if found is None:
            sys.exit("no Pointcept checkout at POINTCEPT_ROOT or ~/.cache/dos-plugin/Pointcept")
        root = found
        command += [] if torch.cuda.is_available() else ["-m", "dos_plugin.cpu"]
    paths = [str(root), str(ROOT), os.environ.get("PYTHONPATH", "")]
    variables = {"OMP_NUM_THREADS": "1", **os.environ}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    variables["DOS_HOST"] = EMBEDDED if host == "embedded" else host
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *words], cwd=root, env=variables, stdout=file, stderr=file
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"failed, see {log}")
    if torch.cuda.is_available():
        return time.perf_counter() - started
    return usage.ru_utime + usage.ru_stime


def synchronize() -> None:
    """Wait for the GPUs, where this process uses one."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call, to the end of its work on the GPU."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def alternate(
    sides: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Time the sides of a comparison in turn, so that noise of the machine meets all of them.

    Args:
        sides: Name and work of each side; the order is reversed in every other round.
        repeats: Timed rounds.
        warmup: Rounds before them.

    Returns:
        Seconds of every timed run of each side; compare their medians.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmup + repeats):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            taken = seconds(sides[name])
            if turn >= warmup:
                times[name].append(taken)
    return times


def extra_peak_memory(
    work: Callable[..., Any],
    prepare: Callable[[], Sequence] = tuple,
    device: str = "cpu",
) -> int:
    """Bytes that ``work`` needs at its peak on top of what is there before.

    On a CPU in a fresh process; on a GPU in this one, whose allocator counts every byte.

    Args:
        work: Called once with what ``prepare`` returns. Both are pickled: a function of a module
            (the script's own is one) or a ``functools.partial`` of it, no lambda or closure.
        prepare: Makes the inputs, which do not count; warm up libraries here with a small call.
        device: ``cpu``: growth of the resident memory (Linux only); ``cuda``: growth of the
            allocated GPU memory.

    Raises:
        concurrent.futures.process.BrokenProcessPool: If the system killed it, as it does when
            the memory does not suffice.
    """
    if device.startswith("cuda"):
        return _peak_on_gpu(work, prepare(), device)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        settings = torch.get_num_threads(), torch.get_float32_matmul_precision()
        return pool.submit(_measure, work, prepare, *settings).result()


def _peak_on_gpu(work: Callable, inputs: Sequence, device: str) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work(*inputs)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _measure(work: Callable, prepare: Callable, threads: int, precision: str) -> int:
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    inputs = prepare()
    # What prepare has freed would be reused without a trace. Not every C library has this.
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    except OSError:
        return _sampled_peak(work, inputs)
    before = _status("VmHWM")
    work(*inputs)
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def _sampled_peak(work: Callable, inputs: Sequence) -> int:
    """Where the system keeps no peak that can be reset: look every millisecond."""
    before = peak = _status("VmRSS")
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, _status("VmRSS"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work(*inputs)
    finally:
        done.set()
        watcher.join()
    return max(peak, _status("VmRSS")) - before


def ratio(ours: float, other: float) -> float | None:
    """``ours / other``; None where the other side was too small to measure."""
    return ours / other if other else None


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows below the keys of the first one, numbers to the right."""
    columns = list(rows[0])
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    right = [any(isinstance(row.get(c), int | float) for row in rows) for c in columns]
    for line in cells:
        aligned = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right)
        )
        print("  ".join(aligned).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else str(value)


def write_json(
    path: str | os.PathLike | None, rows: Sequence[Mapping], summary: Mapping[str, Any]
) -> None:
    """Write machine, command, rows and summary; nothing where ``path`` is None."""
    if path is None:
        return
    script, *arguments = sys.argv
    report = {
        "machine": machine(),
        "command": " ".join(["python", os.path.relpath(script, ROOT), *arguments]),
        "rows": rows,
        "summary": summary,
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(report, indent=1) + "\n")
