"""The demo: synthetic streets, pretraining, probe and report in one command.

What a phase needs to know to be skipped the next time stands in ``demo.json`` in the run's folder:
the settings it ran with. A phase whose settings differ is run again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dos_plugin import __version__
from dos_plugin.host import EMBEDDED
from dos_plugin.probing.probe import ProbeSettings
from dos_plugin.runs.memory import PeakMemory
from dos_plugin.runs.run import OF_A_RUN
from dos_plugin.runs.training import digest, environment, read_notes, train_command, write_notes
from dos_plugin.shipped import config_path

CONFIG = "pretrain-dos-v1m1-9-demo"
STATE = "demo.json"

NEEDED = ("mmengine", "torch_pointcloud", "spconv", "tensorboardX", "matplotlib", "jinja2", "tqdm")

# Files of a run that a new run in the same folder replaces.
REPLACED = (*OF_A_RUN, STATE)


@dataclass(frozen=True)
class Plan:
    """Sizes of a demo.

    Attributes:
        out: folder of the run.
        data: root of the scenes.
        splits: scans per split.
        options: training options besides folders and seed.
        probe: budget of the probes.
        probe_scans: training and validation scans that the probe uses, at most.
        seed: seed of scenes and training; None is the config's for training and 0 for scenes.
        workers: processes that make scenes.
        quick: a smoke run.
    """

    out: Path
    data: Path
    splits: dict[str, int]
    options: tuple[str, ...] = ()
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    probe_scans: tuple[int, int] = (40, 40)
    seed: int | None = None
    workers: int = 2
    quick: bool = False


EXAMPLES = """examples:
  dos-plugin demo --quick
  dos-plugin demo --out exp/dos/seed1 --seed 1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin demo``."""
    parser.epilog = EXAMPLES
    parser.add_argument("--out", type=Path, help="folder of the run (default: exp/dos/demo)")
    parser.add_argument("--data", type=Path, help="root of the scenes (default: data/dos-demo)")
    parser.add_argument("--seed", type=int, help="another seed for scenes and training")
    parser.add_argument("--workers", type=int, default=2, help="processes that make scenes")
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change the training config, as with the host's train.py",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a smoke run of under a minute in folders of its own; its features are poor",
    )


def make_plan(args: argparse.Namespace) -> Plan:
    """The plan that the arguments ask for."""
    suffix = "-quick" if args.quick else ""
    plan: dict[str, Any] = dict(
        out=args.out or Path(f"exp/dos/demo{suffix}"),
        data=args.data or Path(f"data/dos-demo{suffix}"),
        splits=dict(train=160, val=40),
        options=tuple(args.options),
        seed=args.seed,
        workers=args.workers,
        quick=args.quick,
    )
    if args.quick:
        small = ("epoch=3", "eval_epoch=3")
        plan |= dict(
            splits=dict(train=8, val=3),
            options=(*small, *args.options),
            probe=ProbeSettings(seeds=(0, 1), steps=100, knn_bank=2000, knn_queries=1000),
            probe_scans=(8, 3),
        )
    return Plan(**plan)


def main(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin demo``."""
    # The demo runs on the embedded host even where the real one is importable.
    os.environ["DOS_HOST"] = EMBEDDED
    plan = make_plan(args)
    for package in NEEDED:  # now, and not after ten minutes of training
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    try:
        return _run(plan)
    except KeyboardInterrupt:
        print("\nthe same command goes on from here", file=sys.stderr)
        raise


def _run(plan: Plan) -> int:
    started = time.perf_counter()
    state = State(plan.out)
    with PeakMemory() as memory:
        if not plan.quick:
            print("about 15 minutes on two cores; interrupt it and the same command goes on")
        _say(1, f"synthetic streets in {plan.data}")
        make_scenes(plan, state)
        _say(
            2, f"pretraining in {plan.out}, most of the time; {plan.out}/features shows how it goes"
        )
        status = pretrain(plan, state)
        if status:
            return status
        state.keep_peak(memory.mb)
        _say(3, "probes of the frozen features")
        facts = probe(plan, state)
        state.keep_peak(memory.mb)
        _say(4, "report")
        path = report(plan, state, facts)
    _print_summary(facts, path, time.perf_counter() - started)
    return 0


class State:
    """What ``demo.json`` remembers: settings and seconds of each finished phase.

    Args:
        out: folder of the run.

    Raises:
        ValueError: if the folder holds a run that the demo did not make.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = out / STATE
        self.content = read_notes(self.path)
        if not self.content and any(next(out.glob(name), None) for name in REPLACED):
            raise ValueError(
                f"--out: {out} holds a run that the demo did not make, name another folder"
            )

    def done(self, phase: str, settings: dict[str, Any]) -> bool:
        """Whether the phase was finished with the same settings."""
        entry = self.content.get(phase, {})
        return bool(entry.get("done")) and entry["settings"] == _plain(settings)

    def started(self, phase: str, settings: dict[str, Any]) -> bool:
        """Whether the phase was begun, finished or not, with the same settings."""
        return self.content.get(phase, {}).get("settings") == _plain(settings)

    def begin(self, phase: str, settings: dict[str, Any]) -> None:
        """Note that a phase begins; keeps the seconds of an interrupted one."""
        seconds = self.seconds(phase) if self.started(phase, settings) else 0.0
        self.content[phase] = {"settings": _plain(settings), "seconds": seconds, "done": False}
        self.write()

    def add_seconds(self, phase: str, seconds: float, done: bool, **more: Any) -> None:
        """Note that a phase ended, finished or not."""
        entry = self.content[phase]
        entry |= {"seconds": entry["seconds"] + seconds, "done": done, **more}
        self.write()

    def seconds(self, phase: str) -> float:
        """Seconds of a phase over all its attempts, 0 if it never ran."""
        return float(self.content.get(phase, {}).get("seconds", 0.0))

    def keep_peak(self, mb: float) -> None:
        """Remember the largest memory over all calls, MiB."""
        self.content["peak_memory_mb"] = max(mb, self.content.get("peak_memory_mb", 0.0))
        self.write()

    def clear(self) -> None:
        """Remove the run in the folder, and nothing else."""
        for path in [path for name in REPLACED for path in self.out.glob(name)]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self.content = {key: self.content[key] for key in ("scenes",) if key in self.content}

    def write(self) -> None:
        """Write the file, completely or not at all."""
        write_notes(self.path, self.content)


def make_scenes(plan: Plan, state: State) -> None:
    """Make the scenes; the generator itself keeps those that are there already."""
    from dos_plugin.scenes import write_scenes

    started = time.perf_counter()
    record = write_scenes(plan.data, plan.splits, plan.seed or 0, plan.workers)
    seconds = time.perf_counter() - started
    settings = {"record": digest(record), "data": str(plan.data)}
    if not state.done("scenes", settings):
        state.content["scenes"] = {"settings": settings, "seconds": seconds, "done": True}


def pretrain(plan: Plan, state: State) -> int:
    """Train, go on with an interrupted run, or keep a finished one; returns an exit status."""
    from dos_plugin.runs.checkpoint import read_checkpoint

    settings = {
        "config": digest(config_path(CONFIG).read_text()),
        "options": list(plan.options),
        "seed": plan.seed,
        "scenes": state.content["scenes"]["settings"],
        "version": __version__,
    }
    checkpoint = plan.out / "model" / "model_last.pth"
    if state.done("pretrain", settings) and checkpoint.is_file():
        print(f"already there, finished after {read_checkpoint(checkpoint).epoch} epochs")
        return 0
    if not state.started("pretrain", settings):
        if checkpoint.is_file():
            print(f"the run in {plan.out} was made with other settings: starting anew")
        state.clear()
    command = command_line(plan)
    state.begin("pretrain", settings)
    state.content["pretrain"]["command"] = shlex.join(["python", *command])
    print(f"$ {shlex.join(['python', *command])}", flush=True)
    started = time.perf_counter()
    status = 130
    try:
        status = subprocess.run([sys.executable, *command], env=environment(EMBEDDED)).returncode
    finally:
        state.add_seconds("pretrain", time.perf_counter() - started, done=status == 0)
    if status == 130:
        raise KeyboardInterrupt
    if status:
        print(f"dos-plugin demo: pretraining failed, see {plan.out}/train.log", file=sys.stderr)
    return status


def command_line(plan: Plan) -> list[str]:
    """Arguments of the interpreter that train the demo's config."""
    options = [f"data.train.data_root={plan.data}", *plan.options]
    if plan.seed is not None:
        options.append(f"seed={plan.seed}")
    config = config_path(CONFIG)
    if config.is_relative_to(Path.cwd()):
        config = config.relative_to(Path.cwd())
    # Two processes always, since their number is part of what a seed gives.
    script = ["-m", "dos_plugin.minihost", "--num-gpus", "2"]
    return train_command(script, config, plan.out, options)


def probe(plan: Plan, state: State) -> Any:
    """Probe the run, or take the result of the last time; returns the facts for the report."""
    from dos_plugin.probing.scans import ScanSource, class_names
    from dos_plugin.reports.evidence import Facts
    from dos_plugin.reports.write import probe_into
    from dos_plugin.runs.run import open_run

    facts = Facts(commands=[state.content["pretrain"]["command"]])
    checkpoint = plan.out / "model" / "model_last.pth"
    settings = asdict(plan.probe) | {
        "scans": plan.probe_scans,
        "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "version": __version__,
    }
    if state.done("probe", settings):
        print("already there")
        entry = state.content["probe"]
        facts.probe, facts.probe_settings = entry["result"], entry["facts"]
        facts.seconds["probe"] = state.seconds("probe")
        return facts
    state.begin("probe", settings)
    run = open_run(plan.out)
    train = ScanSource(run, plan.data, "train", plan.probe_scans[0])
    val = list(ScanSource(run, plan.data, "val", plan.probe_scans[1]))
    probe_into(facts, run, train, val, class_names(run, plan.data), plan.probe, print)
    state.add_seconds(
        "probe",
        facts.seconds["probe"],
        done=True,
        result=facts.probe,
        facts=_plain(facts.probe_settings),
    )
    return facts


def report(plan: Plan, state: State, facts: Any) -> Path:
    """Write the report of the run and its probe."""
    from dos_plugin.probing.scans import ScanSource, class_names
    from dos_plugin.reports.write import write_report
    from dos_plugin.runs.record import read_record
    from dos_plugin.runs.run import open_run

    run = open_run(plan.out)
    facts.seconds = {
        "scenes": state.seconds("scenes"),
        "pretrain": state.seconds("pretrain"),
        "probe": state.seconds("probe"),
    }
    facts.peak_memory_mb = round(state.content["peak_memory_mb"], 1)
    facts.commands = [shlex.join(["dos-plugin", *sys.argv[1:]]), *facts.commands]
    scans = list(ScanSource(run, plan.data, "val", 8))
    return write_report(read_record(plan.out), scans, facts, class_names(run, plan.data))


def _print_summary(facts: Any, path: Path, seconds: float) -> None:
    from dos_plugin.commands.probe import format_table

    print(f"\n{format_table(facts.probe)}\n")
    phases = ", ".join(f"{name} {value:.0f} s" for name, value in facts.seconds.items())
    print(f"{phases}; this call {seconds:.0f} s; peak memory {facts.peak_memory_mb:.0f} MiB")
    print(f"report: {path}")


def _say(number: int, text: str) -> None:
    print(f"\n[{number}/4] {text}", flush=True)


def _plain(value: Any) -> Any:
    """The value as it comes back from JSON, to compare with what was read."""
    return json.loads(json.dumps(value))
