"""The report of a run: ``report.html`` that opens without network, pictures, ``report.json``."""

from __future__ import annotations

import argparse
import base64
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from dos_plugin import __version__
from dos_plugin.compare import (
    SOURCES,
    class_names,
    feature_function,
    probe_run,
    raw_inputs,
)
from dos_plugin.features import Scan, ScanSource
from dos_plugin.probe import ProbeSettings
from dos_plugin.prototypes import Projector, Usage, load_projector, measure_usage
from dos_plugin.runs import Run, open_run, read_state
from dos_plugin.scalars import read_scalars

PACKAGES = ("torch", "numpy", "torch-pointcloud", "spconv", "mmengine-lite", "tensorboardX")

# Scans over which prototype usage and principal components are measured.
USAGE_SCANS = 8


@dataclass
class Facts:
    """What a report says beyond what it can read from the run itself.

    Attributes:
        probe: result of :func:`dos_plugin.compare.probe_run`, None without labels.
        probe_settings: settings and scans of the probe, as plain values.
        commands: commands that made the run, one a line.
        seconds: wall-clock seconds by phase.
        peak_memory_mb: largest memory of all processes together, MiB.
    """

    probe: dict[str, Any] | None = None
    probe_settings: dict[str, Any] = field(default_factory=dict)
    commands: Sequence[str] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None


def write_report(
    run: Run,
    scans: Sequence[Scan],
    facts: Facts,
    names: Sequence[str] = (),
    picture: int = 0,
    folder: Path | None = None,
) -> Path:
    """Write the report of a finished run.

    Args:
        run: the run; needs a checkpoint.
        scans: scans to measure prototype usage on and to draw.
        facts: what else to report.
        names: class names.
        picture: index of the scan to draw.
        folder: where to; default ``<run>/report``.

    Returns:
        Path of ``report.html``.

    Raises:
        FileNotFoundError: if the run has no checkpoint.
        ValueError: if the checkpoint does not fit the config, or there are no scans.
    """
    started = time.perf_counter()
    if not scans:
        raise ValueError("scans: got none, expected at least one to draw")
    folder = folder or run.folder / "report"
    folder.mkdir(parents=True, exist_ok=True)
    projector = load_projector(run)
    some = list(scans[:USAGE_SCANS])
    usage = measure_usage(projector, some) if projector else None
    drawn = scans[picture % len(scans)]
    pictures = _draw_pictures(run, drawn, some, projector, usage, names, folder)
    charts = _draw_charts(run, usage, folder)
    facts.seconds["report"] = time.perf_counter() - started
    content = _content(run, facts, usage)
    (folder / "report.json").write_text(json.dumps(content, indent=1) + "\n")
    html = _render(content, run, facts, names, drawn, pictures, charts)
    (folder / "report.html").write_text(html, encoding="utf-8")
    return folder / "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin report``."""
    parser.add_argument("run", help="folder of a run, or a checkpoint")
    parser.add_argument("--config", help="config of the run, if it is not in the run's folder")
    parser.add_argument("--data", help="data root; default: the one the run was trained on")
    parser.add_argument("--split", help="scans to draw; default: val if there is one, else train")
    parser.add_argument("--scan", type=int, default=0, help="number of the scan to draw")
    parser.add_argument("--no-probe", action="store_true", help="leave the probe out")
    parser.add_argument("--seeds", type=int, default=3, help="number of probe seeds")
    parser.add_argument("--out", type=Path, help="folder; default: report/ in the run's folder")


def run(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin report``."""
    found = open_run(args.run, args.config)
    read_state(found.checkpoint)  # a missing or broken one should not cost a minute of probing
    root = Path(args.data or found.config.data.train.data_root)
    split = args.split or ("val" if (root / "val").is_dir() else found.config.data.train.split)
    names = class_names(found, args.data)
    scans = list(ScanSource(found, args.data, split, 20))
    facts = Facts(commands=[" ".join(["dos-plugin", *sys.argv[1:]])])
    labelled = any(bool((scan.segment >= 0).any()) for scan in scans)
    separate = (root / "train").is_dir() and split != "train"
    if labelled and separate and not args.no_probe:
        print("probing, which takes about a minute (--no-probe leaves it out)")
        train = ScanSource(found, args.data, "train", 40)
        settings = ProbeSettings(seeds=tuple(range(args.seeds)))
        probe_into(facts, found, train, scans, names, settings, print)
    elif not args.no_probe:
        print(
            "no probe: "
            + ("it needs a train split and another one" if labelled else "no labels in the scans")
        )
    path = write_report(found, scans, facts, names, args.scan, args.out)
    print(f"report: {path}")
    return 0


def probe_into(
    facts: Facts,
    run: Run,
    train: ScanSource,
    val: Sequence[Scan],
    names: Sequence[str],
    settings: ProbeSettings,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Probe a run and keep result, settings and duration in ``facts``."""
    started = time.perf_counter()
    facts.probe = probe_run(run, list(train), val, names, settings=settings, say=say)
    facts.probe_settings = asdict(settings) | {
        "unit": "percent, mean over the seeds",
        "train_scans": len(train),
        "val_scans": len(val),
        "val_voxels": sum(len(scan.segment) for scan in val),
        "voxel_size_m": train.grid_size,
        "raw_inputs": raw_inputs(train),
    }
    facts.seconds["probe"] = time.perf_counter() - started


def versions() -> dict[str, str]:
    """Versions of everything that decides the figures."""
    found = {"dos-plugin": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _content(run: Run, facts: Facts, usage: Usage | None) -> dict[str, Any]:
    """What goes into report.json."""
    curves = read_scalars(run.folder)
    loss = curves.get("train_batch/loss")
    seconds = {name: round(value, 1) for name, value in facts.seconds.items()}
    content: dict[str, Any] = {
        "run": str(run.folder),
        "seed": run.seed,
        "seconds": {"total": round(sum(facts.seconds.values()), 1)} | seconds,
        "peak_memory_mb": facts.peak_memory_mb,
        "versions": versions(),
        "commands": list(facts.commands),
        "config": run.config.to_dict() if hasattr(run.config, "to_dict") else dict(run.config),
    }
    if facts.probe is not None:
        content |= {"probe": facts.probe, "probe_settings": facts.probe_settings}
    if usage is not None:
        content["prototypes"] = usage.figures()
    if loss is not None and len(loss.step):
        content["training"] = {
            "steps": int(loss.step[-1]),
            "loss_first": float(loss.value[0]),
            "loss_last": float(loss.value[-max(1, len(loss.value) // 40) :].mean()),
        }
    return _plain(content)


def _plain(value: Any) -> Any:
    """The value with only what JSON has: NaN and infinities become None, tuples lists."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _draw_pictures(
    run: Run,
    scan: Scan,
    scans: Sequence[Scan],
    projector: Projector | None,
    usage: Usage | None,
    names: Sequence[str],
    folder: Path,
) -> list:
    from dos_plugin import pictures

    found = [pictures.draw_labels(scan, pictures.scan_palette(names), folder)]
    for source, title, caption in (
        (
            "dos",
            "DOS features",
            "First three principal components of the student's frozen features as red, green and "
            "blue. Points of one kind should share a colour wherever they stand: look for ground, "
            "walls, vegetation and cars.",
        ),
        (
            "random",
            "Random weights",
            "The same for the network before training. Expect mostly height and distance; what the "
            "picture of the DOS features tells apart beyond this one was learned.",
        ),
    ):
        features = feature_function(run, source)
        name = "pca" if source == "dos" else "pca-random"
        found.append(pictures.draw_components(scan, scans, features, folder, name, title, caption))
    if projector is not None and usage is not None:
        found.append(pictures.draw_prototypes(scan, projector, usage, folder))
    return [picture for picture in found if picture is not None]


def _draw_charts(run: Run, usage: Usage | None, folder: Path) -> dict[str, Path]:
    """Charts by name; those that the run has nothing for are left out."""
    from dos_plugin import charts

    curves = read_scalars(run.folder)
    paths = {name: folder / f"{name}.png" for name in ("loss", "schedules", "features", "usage")}
    drawn = {
        "loss": charts.loss_chart(curves, paths["loss"]),
        "schedules": charts.schedule_chart(curves, paths["schedules"]),
    }
    if usage is not None:
        isotropic = len(usage.feat_std) ** -0.5
        drawn["features"] = charts.feature_std_chart(curves, isotropic, paths["features"])
        charts.usage_chart(usage, paths["usage"])
        drawn["usage"] = True
    return {name: paths[name] for name, there in drawn.items() if there}


def _render(
    content: dict[str, Any],
    run: Run,
    facts: Facts,
    names: Sequence[str],
    scan: Scan,
    pictures: list,
    charts: dict[str, Path],
) -> str:
    import jinja2
    import numpy as np

    from dos_plugin.pictures import scan_palette

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(Path(__file__).with_name("report.html").read_text("utf-8"))
    palette = scan_palette(names)
    classes = [int(k) for k in np.unique(scan.origin_segment) if k >= 0]
    legend = [
        (names[k] if k < len(names) else f"class {k}", "#{:02x}{:02x}{:02x}".format(*palette[k]))
        for k in classes
        if k < len(palette)
    ]
    return template.render(
        report=content,
        sources=SOURCES,
        pictures=[picture._asdict() for picture in pictures],
        charts=charts,
        legend=legend,
        scan=scan,
        inline=_inline,
        config_text=_config_text(run),
    )


def _config_text(run: Run) -> str:
    return getattr(run.config, "pretty_text", None) or run.config_path.read_text()


def _inline(path: Path) -> str:
    """A PNG as a data URL, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
