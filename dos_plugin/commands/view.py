"""``dos-plugin view``: scans to turn around in a browser, and what is alike in their features."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dos_plugin.commands.ingest import add_plain_numbers
from dos_plugin.drawing.viewer import MOST_POINTS, View, write_view
from dos_plugin.ingest.labels import LabelFiles, map_labels, read_label_map, read_labels
from dos_plugin.ingest.sources import FORMATS, find_files, scene_names
from dos_plugin.messages import some
from dos_plugin.models.backbone import BRANCHES

if TYPE_CHECKING:
    from dos_plugin.encoder.encoder import Encoder
    from dos_plugin.encoder.scan import Scan
    from dos_plugin.models.backbone import Branch
    from dos_plugin.probing.prototypes import Projector, Usage
    from dos_plugin.probing.scans import Scan as Voxels
    from dos_plugin.runs.run import Run

# Scans in a page, at most: each takes some megabytes of it.
MOST_SCANS = 12


EXAMPLES = """examples:
  dos-plugin view drive/000010.pcd
  dos-plugin view a.bin b.bin --checkpoint exp/dos/demo
  dos-plugin view exp/dos/demo --out demo.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin view``."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add(
        "scans",
        nargs="+",
        metavar="FILES|RUN",
        help="scan files, folders of scenes (coord.npy), folders or patterns of either; or the "
        "folder of a run, for its checkpoint and its scans for validation",
    )
    add("--out", type=Path, default=Path("view.html"), metavar="FILE", help="page to write")
    add(
        "--checkpoint",
        metavar="CKPT",
        help="run, checkpoint, exported file or hub repository, for features of the scans; "
        "without one the page shows what is in the files",
    )
    add("--config", help="config of the run, if it is not in the run's folder")
    add("--branch", choices=(*BRANCHES, "segmentor"), help="whose backbone (default: student)")
    add(
        "--count",
        type=int,
        default=2,
        help="scans to take from folders, patterns and runs that hold more, evenly spread",
    )
    add("--data", metavar="ROOT", help="of a run: data root (default: the one it was trained on)")
    add("--split", help="of a run: its scans (default: val if there is one, else train)")
    add("--format", choices=FORMATS, help="of the files (default: by suffix)")
    add_plain_numbers(parser)
    add("--strength-field", metavar="NAME", help="of the files, as for dos-plugin ingest")
    add("--strength-scale", type=float, metavar="S", help="divide strengths of the files by S")
    add("--labels", metavar="PLACE", help="label files, as for dos-plugin ingest")
    add("--label-map", metavar="FILE", help="JSON or YAML: label -> class or 'ignore'")
    add("--classes", nargs="+", metavar="NAME", help="names of the classes from 0")
    add(
        "--max-points",
        type=int,
        default=MOST_POINTS,
        metavar="N",
        help="larger scans are thinned to N points, after their features were made",
    )


def main(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin view``."""
    _check(args)
    if is_run(Path(args.scans[0])):
        title, views, names = _of_run(args)
    else:
        title, views, names = _of_files(args)
    from dos_plugin.reports.figures import scan_palette

    for view in views:
        points = len(view.coord)
        thinned = f", {args.max_points:,} of them in the page" if points > args.max_points else ""
        print(f"{view.name}: {points:,} points{thinned}")
    if views[0].features is None:
        print("no features, which a trained --checkpoint gives: clicks show no similarities")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    size = write_view(args.out, views, names, scan_palette(names), title, args.max_points)
    print(f"{args.out}: {size / 1e6:.1f} MB, open it in a browser")
    return 0


def is_run(path: Path) -> bool:
    """Whether a path is a run's folder or a checkpoint, and no scan."""
    return (path / "config.py").is_file() or path.suffix in (".pth", ".pt", ".safetensors")


def _check(args: argparse.Namespace) -> None:
    if args.out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out: got {args.out}, expected a name that ends in .html")
    for name, least in (("count", 1), ("max_points", 1)):
        if (value := getattr(args, name)) < least:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{option}: got {value}, expected {least} or more")
    if args.count > MOST_SCANS:
        raise ValueError(f"--count: got {args.count}, a page holds at most {MOST_SCANS} scans")
    if args.label_map is not None and args.labels is None:
        raise ValueError("--label-map: needs --labels")


def _of_run(args: argparse.Namespace) -> tuple[str, list[View], list[str]]:
    """Title, scans and class names of a run."""
    import dos_plugin.register  # noqa: F401
    from dos_plugin.probing.compare import feature_function, progress
    from dos_plugin.probing.scans import ScanSource, class_names, held_out_source
    from dos_plugin.reports.view import run_views
    from dos_plugin.runs.run import open_run

    if len(args.scans) > 1:
        raise ValueError(
            f"{args.scans[0]}: a run takes its own scans, expected nothing after it; for other "
            "scans name them alone, and the run with --checkpoint"
        )
    own = Path(args.scans[0])
    config = args.config or (own / "config.py" if own.is_dir() and args.checkpoint else None)
    run = open_run(args.checkpoint or own, config)
    if args.split:
        source = ScanSource(run, args.data, args.split, args.count)
    else:
        source, lack = held_out_source(run, args.data, args.count)
        if lack is not None:
            print(f"scans of {source.place}: none for validation ({lack})")
    scans = list(progress(source, "reading"))
    trained = run.checkpoint is not None
    features = feature_function(run, _branch(run, args.branch)) if trained else None
    projector, usage = _prototypes(run, scans)
    views = run_views(run, progress(scans, "features"), features, projector, usage)
    names = args.classes or class_names(run, args.data)
    return f"{own.resolve().name} on {source.place}", views, list(names)


def _branch(run: Run, wanted: Branch | None) -> Branch:
    run.trained.check_ours()
    return wanted or run.trained.branches[0]


def _prototypes(run: Run, scans: Sequence[Voxels]) -> tuple[Projector | None, Usage | None]:
    """The teacher of a pretraining and its use of prototypes on these scans, else twice None."""
    from dos_plugin.probing.prototypes import load_projector, measure_usage

    if run.checkpoint is None or run.trained.kind != "DOS pretraining":
        return None, None
    projector = load_projector(run)
    return projector, None if projector is None else measure_usage(projector, scans)


def _of_files(args: argparse.Namespace) -> tuple[str, list[View], list[str]]:
    """Title, scans and class names of files and scene folders."""
    from dos_plugin.encoder.scan import read_scan
    from dos_plugin.probing.compare import progress
    from dos_plugin.reports.view import prototypes

    labels = None if args.labels is None else LabelFiles(args.labels)
    table = None if args.label_map is None else read_label_map(args.label_map)
    files = find_scans(args.scans, args.count, labels)
    names = list(args.classes or _scene_names(files[0]))
    own = [file.name for file in files]
    called = own if len(set(own)) == len(own) else scene_names(files)
    title = called[0] if len(files) == 1 else f"{called[0]} and {len(files) - 1} more"
    run, encoder = (None, None) if args.checkpoint is None else _encoder(args)
    read = read_scan if encoder is None else encoder.read
    # Without an encoder strengths are shown as they are stored.
    scale = args.strength_scale or (1.0 if encoder is None else None)
    how = (args.format, args.strength_field, scale, args.columns, args.dtype)
    scans = [
        _labelled(read(file, *how), file, labels, table) for file in progress(files, "reading")
    ]
    views = [
        View(
            name,
            scan.coord,
            scan.segment,
            None if scan.strength is None else scan.strength[:, 0],
            scan.color,
        )
        for scan, name in zip(scans, called)
    ]
    if run is not None and encoder is not None:
        voxels = [encoder.voxels(scan) for scan in scans]
        projector, usage = _prototypes(run, voxels)
        for index, scan in enumerate(progress(scans, "features")):
            features = encoder(scan)
            views[index] = replace(
                views[index],
                features=features.per_voxel.numpy(),
                inverse=features.voxel.numpy(),
                prototype=prototypes(voxels[index], projector, usage),
            )
    return title, views, names


def _encoder(args: argparse.Namespace) -> tuple[Run, Encoder]:
    """The run of ``--checkpoint``, and the encoder that it gives."""
    import dos_plugin.register  # noqa: F401
    from dos_plugin.encoder.encoder import Encoder
    from dos_plugin.runs.hub import find
    from dos_plugin.runs.run import open_run

    run = open_run(find(args.checkpoint), args.config)
    return run, Encoder(run, _branch(run, args.branch))


def find_scans(inputs: Sequence[str], count: int, labels: LabelFiles | None = None) -> list[Path]:
    """Files and scene folders that the inputs name; of a folder or pattern ``count`` of them.

    Raises:
        FileNotFoundError: an input names nothing.
        ValueError: they are too many for a page.
    """
    found: list[Path] = []
    for text in inputs:
        path = Path(text)
        if (path / "coord.npy").is_file():
            found.append(path)
            continue
        scenes = sorted(file.parent for file in path.rglob("coord.npy")) if path.is_dir() else []
        if not scenes:
            scenes, missing = find_files([text])
            if missing:
                raise FileNotFoundError(
                    f"{text}: {missing[path]}, expected scan files, scene folders (coord.npy) or "
                    "the folder of a run (config.py)"
                )
            scenes = [file for file in scenes if labels is None or not labels.holds(file)]
        if len(scenes) > count:
            pick = np.linspace(0, len(scenes) - 1, count).round().astype(int)
            scenes = [scenes[index] for index in pick]
        found += scenes
    if len(found) > MOST_SCANS:
        raise ValueError(
            f"{some([str(path) for path in found], 2)}: {len(found)} scans, a page holds at most "
            f"{MOST_SCANS}: name fewer, or their folder with --count"
        )
    return found


def _scene_names(path: Path) -> list[str]:
    """Class names of synthetic streets, for a scene folder of them."""
    from dos_plugin.probing.scans import scene_class_names

    return scene_class_names(path.resolve().parents[1]) if path.is_dir() else []


def _labelled(
    scan: Scan, file: Path, places: LabelFiles | None, table: dict[int, int] | None
) -> Scan:
    """The scan with the labels of its label file, if there are any."""
    if places is None:
        return scan
    labels = read_labels(places.find(file))
    points = int(scan.row.max()) + 1
    if len(labels) < points or (len(labels) > points and points == len(scan)):
        raise ValueError(f"{file}: {len(labels):,} labels for {points:,} points")
    return replace(scan, segment=map_labels(labels[scan.row], table).astype(np.int64))
