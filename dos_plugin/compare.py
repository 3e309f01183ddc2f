"""One probe for several feature sources: trained backbones, random weights, raw inputs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dos_plugin.checkpoint_file import Branch, branches_of, check_ours, read_checkpoint
from dos_plugin.features import Scan, ScanSource, default_splits, extract
from dos_plugin.probe import LabelledFeatures, ProbeSettings, Scores, knn_probe, linear_probe
from dos_plugin.runs import Run, active_host, load_backbone, open_run, random_backbone
from dos_plugin.whole_file import write_whole

SOURCES = {
    "dos": "DOS, student",
    "teacher": "DOS, teacher",
    "segmentor": "segmentation run",
    "random": "random weights",
    "raw": "raw inputs",
}
# Those of a pretraining.
PRETRAINING = ("dos", "teacher", "random", "raw")
BRANCHES: dict[str, Branch] = {"dos": "student", "teacher": "teacher", "segmentor": "segmentor"}

# Random voxels kept of a scan, which bounds the memory: every probe seed draws its own of the
# training ones, and is scored on all of the validation ones.
KEPT_TRAIN, KEPT_VAL = 4000, 8000


def probe_run(
    run: Run,
    train: Sequence[Scan],
    val: Sequence[Scan],
    names: Sequence[str] = (),
    sources: Iterable[str] = PRETRAINING,
    settings: ProbeSettings | None = None,
    knn: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, Any]]:
    """Probe several feature sources on the same points with the same budget.

    Args:
        run: the run whose backbone is probed; ``random`` uses the weights it started from.
        train: scans to train the probes on.
        val: scans to score them on.
        names: class names; classes without a name are called by their number.
        sources: keys of ``SOURCES``.
        settings: budget of the probes.
        knn: also run the nearest-neighbour probe.
        say: called with a line when a source is done.

    Returns:
        A dict per source: ``miou``, ``miou_std``, ``accuracy`` (percent, means over the seeds),
        ``miou_seeds``, ``iou`` (class name to percent, None if absent from the labels),
        ``channels``, and the same scores of the other probe under ``knn``.

    Raises:
        ValueError: for an unknown source, and for scans that have no labels or one class only.
    """
    settings = settings or ProbeSettings()
    count_classes([*train, *val], names)
    check_labels(train, val)
    result = {}
    for source in sources:
        features = feature_function(run, source)
        entry = probe_features(features, train, val, names, settings, knn, SOURCES[source])
        result[source] = entry
        say(f"{SOURCES[source]}: {entry['miou']:.1f} mIoU")
    return result


def probe_features(
    features: Callable[[Scan], Tensor],
    train: Sequence[Scan],
    val: Sequence[Scan],
    names: Sequence[str] = (),
    settings: ProbeSettings | None = None,
    knn: bool = True,
    what: str = "features",
) -> dict[str, Any]:
    """Probe one feature source; an entry of :func:`probe_run`.

    Args:
        features: gives the (N, C) features of a scan's voxels.
        train: scans to train the probes on.
        val: scans to score them on.
        names: class names.
        settings: budget of the probes.
        knn: also run the nearest-neighbour probe.
        what: name of the source on the progress bar.

    Raises:
        ValueError: for scans that have no labels or one class only, and for features with NaN.
    """
    settings = settings or ProbeSettings()
    num_classes = count_classes([*train, *val], names)
    data = (
        gather(features, progress(train, f"{what}, train"), KEPT_TRAIN),
        gather(features, progress(val, f"{what}, val"), KEPT_VAL),
    )
    entry = _over_seeds(linear_probe, *data, num_classes, settings, names)
    entry["channels"] = data[0].feat.shape[1]
    if knn:
        entry["knn"] = _over_seeds(knn_probe, *data, num_classes, settings, names)
    return entry


def feature_function(run: Run, source: str) -> Callable[[Scan], Tensor]:
    """A function that gives the (N, C) features of a scan's voxels for a source.

    Raises:
        ValueError: if the source is unknown or the checkpoint does not fit.
    """
    if source not in SOURCES:
        raise ValueError(f"source: got {source!r}, expected one of {', '.join(SOURCES)}")
    if source == "raw":
        return lambda scan: scan.raw
    if source == "random":
        backbone = random_backbone(run)
    else:
        backbone = load_backbone(run, BRANCHES[source])
    return lambda scan: extract(backbone, scan)


def sources_of(run: Run) -> tuple[str, ...]:
    """What can be probed of a run: the networks in its checkpoint, random weights, raw inputs.

    Raises:
        ValueError: if the checkpoint is none, or of something else.
    """
    if run.checkpoint is None:
        return ("random", "raw")
    content = read_checkpoint(run.checkpoint)
    check_ours(content, run.checkpoint)
    branches = branches_of(content)
    return (*(source for source, branch in BRANCHES.items() if branch in branches), "random", "raw")


def progress(items: Iterable[Any], what: str) -> Iterable[Any]:
    """The items under a progress bar, if there is a terminal and tqdm."""
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    return tqdm(items, what, unit="scan", leave=False, disable=not sys.stderr.isatty())


def gather(
    features: Callable[[Scan], Tensor], scans: Iterable[Scan], keep: int | None = None
) -> LabelledFeatures:
    """Features and labels of all scans, of at most ``keep`` random voxels each."""
    pairs = []
    for index, scan in enumerate(scans):
        feat, label = features(scan), scan.segment
        if keep is not None and keep < len(label):
            generator = torch.Generator().manual_seed(index)
            rows = torch.randperm(len(label), generator=generator)[:keep]
            feat, label = feat.index_select(0, rows), label[rows]
        pairs.append((feat, label))
    return LabelledFeatures.concat(pairs)


def count_classes(scans: Sequence[Scan], names: Sequence[str] = ()) -> int:
    """Number of classes: that of the names, or what the labels need.

    Raises:
        ValueError: if there is no scan, or no label in any scan.
    """
    if not scans:
        raise ValueError("scans: got none, expected at least one")
    largest = max(int(scan.segment.max()) if len(scan.segment) else -1 for scan in scans)
    if largest < 0:
        raise ValueError(
            f"{scans[0].name} and {len(scans) - 1} more scans have no labels, a probe needs "
            "segment.npy with classes from 0"
        )
    return max(len(names), largest + 1)


def check_labels(train: Sequence[Scan], val: Sequence[Scan]) -> None:
    """Look for two classes to train on and one to score, before the features are made.

    Raises:
        ValueError: if a side has no labels, or the training scans have one class only.
    """
    for side, scans, least in (("train", train, 2), ("val", val, 1)):
        if not scans:
            raise ValueError(f"scans: got none in {side}, expected at least one")
        found = {int(label) for scan in scans for label in scan.segment.unique() if label >= 0}
        if len(found) < least:
            raise ValueError(
                f"{side}: {len(scans)} scans as {scans[0].name} have labels of "
                f"{len(found)} classes{f' ({found.pop()})' if found else ''}, expected at least "
                f"{least}"
            )


def class_names(run: Run, data_root: str | Path | None = None) -> list[str]:
    """Class names from ``scenes.json`` of synthetic scenes or ``data.names`` of the config."""
    data = run.config.get("data") or {}
    root = Path(data_root or (data.get("train") or {}).get("data_root") or ".")
    file = root / "scenes.json"
    if file.is_file():
        return [str(name) for name in json.loads(file.read_text()).get("class_names") or ()]
    return [str(name) for name in data.get("names") or ()]


def raw_inputs(source: ScanSource) -> list[str]:
    """Names of what a probe of raw inputs gets."""
    return [*source.keys, "x", "y", "z"]


def format_table(result: dict[str, dict[str, Any]]) -> str:
    """A table for the terminal: a line per source, mean and standard deviation over seeds."""
    lines = [f"{'frozen features':<18}{'linear mIoU':>14}{'accuracy':>10}{'kNN mIoU':>14}"]
    for source, entry in result.items():
        knn = entry.get("knn")
        lines.append(
            f"{SOURCES[source]:<18}{_spread(entry):>14}{entry['accuracy']:>10.1f}"
            f"{_spread(knn) if knn else '-':>14}"
        )
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin probe``."""
    parser.add_argument(
        "run",
        metavar="CKPT",
        help="checkpoint, exported file, run's folder, or a config (random weights)",
    )
    parser.add_argument("--config", help="config of the run, if it is not in the run's folder")
    parser.add_argument("--data", help="data root; default: the one the run was trained on")
    parser.add_argument("--train-split", help="to train on; default: train (Waymo: training)")
    parser.add_argument("--val-split", help="to score it on; default: val (Waymo: validation)")
    parser.add_argument("--train-scans", type=int, default=40, help="at most that many scans")
    parser.add_argument("--val-scans", type=int, default=20, help="at most that many scans")
    parser.add_argument("--seeds", type=int, default=3, help="number of probe seeds")
    parser.add_argument("--steps", type=int, default=ProbeSettings.steps, help="linear probe steps")
    parser.add_argument(
        "--balance",
        type=float,
        default=ProbeSettings.balance,
        help="class weights are frequency**-BALANCE: 0 plain, 1 class-balanced cross-entropy",
    )
    parser.add_argument(
        "--sources", nargs="+", choices=tuple(SOURCES), help="default: all there are"
    )
    parser.add_argument("--no-knn", action="store_true", help="leave the kNN probe out")
    parser.add_argument("--json", metavar="FILE", help="also write the results to a file")


def run(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin probe``."""
    found = open_run(args.run, args.config)
    sources = args.sources or sources_of(found)  # named ones may be of another method's backbone
    if found.checkpoint is None and Path(args.run).is_dir() and not args.sources:
        # A folder stands for its trained model; a config file for random weights.
        raise FileNotFoundError(
            f"{args.run}/model/model_last.pth: no checkpoint there, has the run finished its first "
            "epoch?"
        )
    settings = replace(
        ProbeSettings(), seeds=tuple(range(args.seeds)), steps=args.steps, balance=args.balance
    )
    splits = default_splits(found, args.data)
    train = ScanSource(found, args.data, args.train_split or splits[0], args.train_scans)
    val = ScanSource(found, args.data, args.val_split or splits[1], args.val_scans)
    print(f"{len(train)} scans of {train.place} to train, {len(val)} of {val.place} to score")
    result = probe_run(
        found,
        [scan for scan in progress(train, "reading, train")],
        [scan for scan in progress(val, "reading, val")],
        class_names(found, args.data),
        sources,
        settings,
        knn=not args.no_knn,
        say=print,
    )
    print(f"\n{format_table(result)}\nraw inputs: {', '.join(raw_inputs(train))}")
    if args.json:
        content = {
            "probe": result,
            "settings": asdict(settings),
            "checkpoint": str(found.checkpoint),
            "host": active_host().name,
            "train": {"place": train.place, "scans": len(train)},
            "val": {"place": val.place, "scans": len(val)},
        }
        write_whole(Path(args.json), lambda file: file.write_text(json.dumps(content, indent=1)))
    return 0


def _over_seeds(
    probe: Callable[..., Scores],
    train: LabelledFeatures,
    val: LabelledFeatures,
    num_classes: int,
    settings: ProbeSettings,
    names: Sequence[str],
) -> dict[str, Any]:
    """Mean and standard deviation (of the sample) of a probe over its seeds."""
    scores = [probe(train, val, num_classes, seed, settings) for seed in settings.seeds]
    miou = np.array([score.miou for score in scores])
    # A class is in the labels of all seeds or of none, but for kNN, which scores a sample.
    iou = np.stack([score.iou for score in scores])
    present = ~np.isnan(iou).all(axis=0)
    labels = [names[k] if k < len(names) else f"class {k}" for k in range(num_classes)]
    return {
        "miou": float(miou.mean()),
        "miou_std": float(miou.std(ddof=1)) if len(miou) > 1 else 0.0,
        "miou_seeds": miou.tolist(),
        "accuracy": float(np.mean([score.accuracy for score in scores])),
        "iou": {
            label: float(np.nanmean(iou[:, k])) if present[k] else None
            for k, label in enumerate(labels)
        },
    }


def _spread(entry: dict[str, Any]) -> str:
    return f"{entry['miou']:.1f} ± {entry['miou_std']:.1f}"
