"""The report of a run: ``report.html`` that opens without network, pictures, ``report.json``.

It is made of what is there. A run may be unfinished, its files may be damaged or missing, it may be
one of the host's own: whatever cannot be shown is named in the page and on the console.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dos_plugin.compare import (
    class_names,
    feature_function,
    probe_run,
    raw_inputs,
    sources_of,
)
from dos_plugin.features import Scan, ScanSource, default_splits, held_out_source
from dos_plugin.probe import ProbeSettings
from dos_plugin.prototypes import Projector, Usage, load_projector, measure_usage
from dos_plugin.record import Missing, Record, problem, read_record
from dos_plugin.report_charts import draw_charts
from dos_plugin.report_page import Facts, evidence_of, write_page
from dos_plugin.runs import Run
from dos_plugin.verdict import judge

__all__ = ["Facts", "add_arguments", "probe_into", "run", "write_report"]

# Scans over which prototype usage and principal components are measured.
USAGE_SCANS = 8

# Scans that are read, evenly spread over the split; a probe is scored on all of them.
SCANS = 20

# What is drawn by principal components: title, and what to look for, by source.
FEATURES = {
    "dos": (
        "DOS features",
        "First three principal components of the student's frozen features as red, green and "
        "blue. Points of one kind should share a colour wherever they stand: look for ground, "
        "walls, vegetation and cars.",
    ),
    "teacher": (
        "DOS features of the teacher",
        "First three principal components of the frozen features as red, green and blue. Points "
        "of one kind should share a colour wherever they stand.",
    ),
    "segmentor": (
        "Features of the trained backbone",
        "First three principal components of the backbone's features as red, green and blue. "
        "Points of one class should share a colour wherever they stand.",
    ),
    "random": (
        "Random weights",
        "The same for the network with random weights. Expect mostly height and distance; what the "
        "picture above tells apart beyond this one was learned.",
    ),
}


def write_report(
    record: Record,
    scans: Sequence[Scan],
    facts: Facts,
    names: Sequence[str] = (),
    picture: Scan | None = None,
    folder: Path | None = None,
) -> Path:
    """Write the report of a run out of what there is.

    Args:
        record: the run, as :func:`dos_plugin.record.read_record` found it; what turns out to be
            missing is added to its list.
        scans: scans to measure prototype usage on; may be empty.
        facts: what else to report.
        names: class names.
        picture: the scan to draw, the first one if None.
        folder: where to; default ``<run>/report``.

    Returns:
        Path of ``report.html``.
    """
    started = time.perf_counter()
    folder = folder or record.folder / "report"
    folder.mkdir(parents=True, exist_ok=True)
    usage, pictures = None, []
    scan = picture or (scans[0] if scans else None)
    if scan is not None and record.run is not None:
        some = list(scans[:USAGE_SCANS]) or [scan]
        projector, usage = _usage(record, record.run, some)
        pictures = _draw_pictures(record, record.run, scan, some, projector, usage, names, folder)
    charts: dict[str, Path] = {}
    with record.attempt("charts", "all curves", "pip install matplotlib."):
        charts = draw_charts(record, usage, folder)
    facts.seconds["report"] = time.perf_counter() - started
    facts.verdict = judge(evidence_of(record, facts, usage))
    return write_page(record, facts, usage, names, scan, pictures, charts, folder)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin report``."""
    parser.add_argument("run", help="folder of a run, or a checkpoint")
    parser.add_argument("--config", help="config of the run, if it is not in the run's folder")
    parser.add_argument("--data", help="data root; default: the one the run was trained on")
    parser.add_argument("--split", help="scans to show; default: val if there is one, else train")
    parser.add_argument("--scan", type=int, help="number of the scan to draw, in the sorted split")
    parser.add_argument("--no-probe", action="store_true", help="leave the probe out")
    parser.add_argument("--seeds", type=int, default=3, help="number of probe seeds")
    parser.add_argument("--out", type=Path, help="folder; default: report/ in the run's folder")


def run(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin report``."""
    record = read_record(args.run, args.config)
    facts = Facts(commands=[" ".join(["dos-plugin", *sys.argv[1:]])])
    scans: list[Scan] = []
    picture: Scan | None = None
    names: list[str] = []
    if record.run is not None:
        with record.attempt("class names", "classes by name", "Look at data.names."):
            names = class_names(record.run, args.data)
        source = _find_scans(record, record.run, args)
        if source is not None:
            scans = _read_scans(record, source)
            picture = _chosen(record, record.run, args, source.split)
            if not args.no_probe:
                _probe(record, record.run, facts, scans, names, source.split, args)
    path = write_report(record, scans, facts, names, picture, args.out)
    for missing in record.missing:
        if not missing.optional:
            print(f"missing: {missing}", file=sys.stderr)
    if facts.verdict is not None:
        print(f"{facts.verdict.title}: {' '.join(facts.verdict.reasons)}")
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


def _find_scans(record: Record, run: Run, args: argparse.Namespace) -> ScanSource | None:
    """Where the scans to show are; None for a network whose inputs are unknown."""
    shows = "pictures of a scan, prototypes and the probe"
    if record.kind == "other pretraining":
        what = f"scans for {record.model.get('type')}"
        why = "not tried: how its inputs are made is known for DOS and segmentation runs only"
        record.missing.append(Missing(what, why, shows, "", optional=True))
        return None
    remedy = "Give the root of scans of that kind with --data, and --split where it has others."
    with record.attempt("scans", shows, remedy):
        if args.split:
            return ScanSource(run, args.data, args.split, SCANS)
        source, lack = held_out_source(run, args.data, SCANS)
        if lack is not None:
            what, shows = "scans for validation", "scans that were not trained on, and the probe"
            record.missing.append(Missing(what, problem(lack), shows, remedy, optional=True))
        return source
    return None


def _read_scans(record: Record, source: ScanSource) -> list[Scan]:
    """As many of the scans as can be read."""
    scans: list[Scan] = []
    broken: dict[str, str] = {}
    for index in range(len(source)):
        try:
            scans.append(source[index])
        except Exception as error:  # a damaged file fails in any way
            broken[str(source.dataset.data_list[index])] = problem(error)
    for name, why in broken.items():
        record.missing.append(Missing(name, why, "this scan", "Look at its files."))
    if scans and not any(bool((scan.segment >= 0).any()) for scan in scans):
        what, shows = f"labels of the scans in {source.place}", "the true classes and the probe"
        remedy = "Label some scans (docs/own-data.md), or give the root of labelled ones (--data)."
        record.missing.append(Missing(what, "there are none", shows, remedy))
    return scans


def _chosen(record: Record, run: Run, args: argparse.Namespace, split: Any) -> Scan | None:
    """The scan that ``--scan`` names; None without the option, and if it cannot be read."""
    if args.scan is None:
        return None
    source = ScanSource(run, args.data, split)
    if not 0 <= args.scan < len(source):
        raise ValueError(f"--scan {args.scan}: {source.place} has 0 to {len(source) - 1}")
    with record.attempt(f"scan {args.scan}", "this scan", "Look at its files."):
        return source[args.scan]
    return None


def _probe(
    record: Record,
    run: Run,
    facts: Facts,
    scans: Sequence[Scan],
    names: Sequence[str],
    split: Any,
    args: argparse.Namespace,
) -> None:
    """Probe a DOS pretraining, if there is what it takes."""
    labelled = any(bool((scan.segment >= 0).any()) for scan in scans)
    if record.kind != "DOS pretraining" or record.checkpoint is None or not labelled:
        return
    shows = "what the frozen features know, beside random weights"
    remedy = "The root of labelled scans (--data) needs a split to train on and another one."
    with record.attempt("probe", shows, remedy):
        of_training, held_out = default_splits(run, args.data)
        if split == of_training or split != (args.split or held_out):
            raise ValueError(f"there is no split apart from {split!r}")
        print("probing, which takes about a minute (--no-probe leaves it out)")
        train = ScanSource(run, args.data, of_training, 40)
        settings = ProbeSettings(seeds=tuple(range(args.seeds)))
        probe_into(facts, run, train, scans, names, settings, print)


def _usage(
    record: Record, run: Run, scans: Sequence[Scan]
) -> tuple[Projector | None, Usage | None]:
    """The teacher and its use of prototypes; None where there are none."""
    if record.kind != "DOS pretraining" or record.checkpoint is None:
        return None, None
    projector, usage = None, None
    remedy = "Is it the checkpoint of this config?"
    with record.attempt("prototypes", "their use against the Zipf prior", remedy):
        projector = load_projector(run)
        usage = measure_usage(projector, scans) if projector else None
    return projector, usage


def _draw_pictures(
    record: Record,
    run: Run,
    scan: Scan,
    scans: Sequence[Scan],
    projector: Projector | None,
    usage: Usage | None,
    names: Sequence[str],
    folder: Path,
) -> list[Any]:
    """Pictures of a scan; what cannot be drawn is added to what is missing."""
    from dos_plugin import pictures

    found: list[Any] = []
    with record.attempt("pictures", "the scan by class", "pip install pillow."):
        found.append(pictures.draw_labels(scan, pictures.scan_palette(names), folder))
    remedy = "Is it the checkpoint of this config, and is its model known here?"
    available: tuple[str, ...] = ("random",)
    with record.attempt("features", "the scan coloured by its features", remedy):
        available = sources_of(run)
    trained = [source for source in FEATURES if source in available and source != "random"]
    for source in (*trained[:1], "random"):
        title, caption = FEATURES[source]
        with record.attempt(title, "the scan coloured by its features", remedy):
            features = feature_function(run, source)
            name = "pca-random" if source == "random" else "pca"
            drawn = pictures.draw_components(scan, scans, features, folder, name, title, caption)
            found.append(drawn)
    if projector is not None and usage is not None:
        with record.attempt("Strongest prototype", "the scan by prototype", ""):
            found.append(pictures.draw_prototypes(scan, projector, usage, folder))
    return [picture for picture in found if picture is not None]
