"""The report of a run: ``report.html`` that opens without network, pictures, ``report.json``.

It is made of what is there. A run may be unfinished, its files may be damaged or missing, it may be
one of the host's own: whatever cannot be shown is named in the page and on the console.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from dos_plugin.drawing.pictures import Picture, draw_components, draw_labels, draw_prototypes
from dos_plugin.drawing.viewer import write_view
from dos_plugin.probing.compare import feature_function, probe_run, raw_inputs, sources_of
from dos_plugin.probing.probe import ProbeSettings
from dos_plugin.probing.prototypes import Projector, Usage, load_projector, measure_usage
from dos_plugin.probing.scans import Scan, ScanSource
from dos_plugin.reports.evidence import Facts, evidence_of
from dos_plugin.reports.figures import draw_charts, scan_palette
from dos_plugin.reports.page import Drawn, write_page
from dos_plugin.reports.verdict import judge
from dos_plugin.reports.view import run_views
from dos_plugin.runs.record import Record
from dos_plugin.runs.run import Run

# Scans over which prototype usage and principal components are measured.
USAGE_SCANS = 8

# Scans to turn around, beside the report.
VIEWED_SCANS = 2


# What is drawn by principal components: title, and what to look for, by source.
FEATURES = {
    "student": (
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
        record: the run, as :func:`~dos_plugin.runs.record.read_record` found it; what turns out to
            be missing is added to its list.
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
    drawn = Drawn(names, picture or (scans[0] if scans else None))
    if drawn.scan is not None and record.run is not None:
        some = list(scans[:USAGE_SCANS]) or [drawn.scan]
        projector, drawn.usage = _usage(record, record.run, some)
        drawn.pictures = _draw_pictures(record, record.run, drawn, some, projector, folder)
        drawn.view = _write_view(record, record.run, drawn, some, projector, folder)
    with record.attempt("charts", "all curves", "pip install matplotlib."):
        drawn.charts = draw_charts(record, drawn.usage, folder)
    facts.seconds["report"] = time.perf_counter() - started
    facts.verdict = judge(evidence_of(record, facts, drawn.usage))
    return write_page(record, facts, drawn, folder)


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


def _write_view(
    record: Record,
    run: Run,
    drawn: Drawn,
    scans: Sequence[Scan],
    projector: Projector | None,
    folder: Path,
) -> Path | None:
    """The scan of the pictures and others in a page to turn around, with the run's features."""
    path = folder / "view.html"
    path.unlink(missing_ok=True)  # of an earlier report
    if drawn.scan is None or record.checkpoint is None:
        return None
    chosen = [drawn.scan, *(scan for scan in scans if scan is not drawn.scan)][:VIEWED_SCANS]
    with record.attempt(
        "view.html", "scans to turn around", "Is it the checkpoint of this config?"
    ):
        features = feature_function(run, sources_of(run)[0])
        views = run_views(run, chosen, features, projector, drawn.usage)
        write_view(path, views, drawn.names, scan_palette(drawn.names), record.folder.name)
    return path if path.is_file() else None


def _draw_pictures(
    record: Record,
    run: Run,
    drawn: Drawn,
    scans: Sequence[Scan],
    projector: Projector | None,
    folder: Path,
) -> list[Picture]:
    """Pictures of a scan; what cannot be drawn is added to what is missing."""
    scan = drawn.scan
    if scan is None:
        return []
    found: list[Picture | None] = []
    with record.attempt("pictures", "the scan by class", "pip install pillow."):
        found.append(draw_labels(scan, scan_palette(drawn.names), folder))
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
            found.append(draw_components(scan, scans, features, folder, name, title, caption))
    if projector is not None and drawn.usage is not None:
        with record.attempt("Strongest prototype", "the scan by prototype", ""):
            found.append(draw_prototypes(scan, projector, drawn.usage, folder))
    return [picture for picture in found if picture is not None]
