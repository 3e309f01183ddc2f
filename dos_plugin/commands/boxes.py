"""``dos-plugin boxes``: true boxes and those of a detector on scans, as a picture."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dos_plugin.detection.boxes import Boxes, Frame, find_frame
from dos_plugin.detection.nuscenes import Pose
from dos_plugin.detection.results import find_poses, read_frames, read_street
from dos_plugin.ingest.readers import read_fields
from dos_plugin.ingest.scan import make_scan
from dos_plugin.ingest.sources import FORMATS, find_files, format_of
from dos_plugin.messages import some
from dos_plugin.whole_file import write_whole

# Points are drawn in greys, from the ground to so many metres above it, so that boxes stand out.
LOW, HIGH, TOP = 62, 176, 4.0


EXAMPLES = """examples:
  dos-plugin boxes data/kitti/training/velodyne/000010.bin \\
      --truth data/kitti/training/label_2 --results results.pkl --out boxes.png
  dos-plugin boxes data/dos-demo --split val --count 4 --out boxes.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin boxes``."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "scan",
        metavar="SCAN",
        help="scan file (.pcd.bin of nuScenes, .bin of KITTI, .npy, .pcd, .ply), folder of a "
        "scene (coord.npy), or a folder of several of either",
    )
    parser.add_argument(
        "--truth",
        type=Path,
        metavar="PATH",
        help="true boxes: tables of nuScenes (folder), infos (.pkl) of MMDetection3D, OpenPCDet or "
        "Pointcept, labels of KITTI (.txt or folder), scenes (boxes.npy); a scene's own are found",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="PATH",
        help="boxes of a detector: submission of nuScenes (.json), results (.pkl) of MMDetection3D "
        "or OpenPCDet, results of KITTI (.txt or folder)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="PNG to write")
    parser.add_argument("--score", type=float, default=0.3, help="least score, 0 to 1")
    parser.add_argument(
        "--scan-id",
        metavar="ID",
        help="name of the scan in those files (token, frame or file), if it is not that of SCAN",
    )
    parser.add_argument(
        "--split", help="folder below SCAN, where SCAN is a data root with such folders"
    )
    parser.add_argument(
        "--count", type=int, default=1, help="scans to draw out of a folder, evenly spread"
    )
    parser.add_argument(
        "--poses",
        type=Path,
        metavar="PATH",
        help="tables of nuScenes or infos, for a submission; default: those of --truth",
    )
    parser.add_argument(
        "--calib",
        type=Path,
        metavar="PATH",
        help="calibration of KITTI; default: beside the labels",
    )
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="class names of numbered results"
    )
    parser.add_argument("--format", choices=FORMATS, help="of the scan files; default: by suffix")
    parser.add_argument(
        "--forward",
        choices=("x", "y"),
        help="axis that points ahead, to the right in the picture; default: y of nuScenes, else x",
    )
    parser.add_argument(
        "--span", type=float, default=80.0, help="width of the bird's-eye view, metres"
    )


class _Drawn(NamedTuple):
    name: str
    coord: np.ndarray
    truth: Boxes
    found: Boxes


def main(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin boxes``."""
    _check(args)
    scans = _scans(args)
    poses, classes = _poses(args), args.classes or ()
    truth = read_frames(args.truth, classes, poses, args.calib) if args.truth else None
    found = read_frames(args.results, classes, poses, args.calib) if args.results else None
    drawn = [_read(scan, args, truth, found) for scan in scans]
    for one in drawn:
        print(f"{one.name}: {_counts(one)}")
    image = draw(drawn, args.span, args.score if found is not None else None)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    from PIL import Image

    write_whole(args.out, lambda file: Image.fromarray(image).save(file, "PNG"))
    print(args.out)
    return 0


def draw(drawn: Sequence[_Drawn], span: float = 0.0, score: float | None = None) -> np.ndarray:
    """A sheet of scans with their boxes, a row each.

    Args:
        drawn: scans with boxes, ahead is +x.
        span: width of the bird's-eye view, metres.
        score: the least one of the boxes of a detector, for the title.

    Returns:
        (H, W, 3) uint8.
    """
    from dos_plugin.drawing.boxes import TRUTH, class_colour, draw_boxes, found_boxes, true_boxes
    from dos_plugin.drawing.sheet import scan_sheet

    def over(row: int, picture: np.ndarray, camera) -> np.ndarray:
        one = drawn[row]
        found = found_boxes(one.found.box, one.found.label, one.found.score)
        if score is None:  # true boxes alone: by class
            plain = found_boxes(one.truth.box, one.truth.label)
            return draw_boxes(picture, plain, camera)
        # True ones first: white lines of small things would hide the others.
        picture = draw_boxes(picture, true_boxes(one.truth.box), camera)
        return draw_boxes(picture, found, camera)

    names = {name for one in drawn for name in (one.truth if score is None else one.found).label}
    legend = [(name, class_colour(name)) for name in sorted(names)]
    if score is not None and any(len(one.truth) for one in drawn):
        legend = [("true", TRUTH), *legend]
    title = "true boxes" if score is None else f"boxes of score {score:g} and more"
    return scan_sheet(
        [one.coord for one in drawn],
        [height_greys(one.coord) for one in drawn],
        [f"{one.name} ({_counts(one)})" for one in drawn],
        title,
        f"{span:g} m from left to right" if span else "",
        legend,
        over,
        span,
    )


def height_greys(coord: np.ndarray) -> np.ndarray:
    """(N, 3) uint8: grey by height, blue a little."""
    ground = np.percentile(coord[:, 2], 10)
    share = np.clip((coord[:, 2:3] - ground) / TOP, 0, 1) ** 0.7
    return ((LOW + (HIGH - LOW) * share) * [0.92, 0.97, 1.08]).astype(np.uint8)


def _counts(one: _Drawn) -> str:
    parts = [f"{len(one.truth)} true" if len(one.truth) else ""]
    parts.append(f"{len(one.found)} found" if one.found.score is not None else "")
    return ", ".join(part for part in parts if part) or "no boxes"


def _check(args: argparse.Namespace) -> None:
    if args.count < 1:
        raise ValueError(f"--count: got {args.count}, expected 1 or more")
    if args.span <= 0:
        raise ValueError(f"--span: got {args.span:g}, expected more than 0 m")
    if args.scan_id and args.count > 1:
        raise ValueError("--scan-id: names one scan, leave --count out")
    if args.out.suffix.lower() != ".png":
        raise ValueError(f"--out: got {args.out}, expected a name that ends in .png")


def _scans(args: argparse.Namespace) -> list[Path]:
    """Scan files and scene folders that SCAN means."""
    root = Path(args.scan) / args.split if args.split else Path(args.scan)
    if (root / "coord.npy").is_file():
        return [root]
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such file or folder, expected a scan")
    scenes = sorted(file.parent for file in root.glob("*/coord.npy")) if root.is_dir() else []
    if not scenes:
        if root.is_dir() and (below := sorted({p.parents[1] for p in root.glob("*/*/coord.npy")})):
            names = some([path.name for path in below])
            raise ValueError(f"{root}: scenes lie in its folders {names}; name one with --split")
        scenes, missing = find_files([str(root)])
        for path, why in missing.items():
            raise FileNotFoundError(f"{path}: {why}, expected a scan or a scene (coord.npy)")
    if args.scan_id is None and args.count < len(scenes):
        pick = np.linspace(0, len(scenes) - 1, args.count + 1)[:-1].astype(int)
        scenes = [scenes[i] for i in pick]
    if args.scan_id is not None and len(scenes) > 1:
        raise ValueError(f"--scan-id: {root} holds {len(scenes)} scans, name one of them as SCAN")
    return scenes


def _poses(args: argparse.Namespace) -> Mapping[str, Pose] | None:
    if args.poses:
        poses = find_poses(args.poses)
        if poses is None:
            raise ValueError(
                f"--poses: {args.poses} has no poses of nuScenes, expected its tables (a folder "
                "with ego_pose.json) or infos of a host with ego2global or ref_from_car"
            )
        return poses
    if args.truth and args.results and args.results.suffix == ".json":
        return find_poses(args.truth)
    return None


def _read(
    scan: Path,
    args: argparse.Namespace,
    truth: Sequence[Frame] | None,
    found: Sequence[Frame] | None,
) -> _Drawn:
    """A scan and its boxes, ahead is +x."""
    wanted = args.scan_id or str(scan.resolve())
    none = Boxes(np.zeros((0, 7)), ())
    forward = args.forward
    if scan.is_dir():
        coord = np.load(scan / "coord.npy")
        if coord.ndim != 2 or coord.shape[1] != 3 or not len(coord):
            raise ValueError(f"{scan / 'coord.npy'}: got {coord.shape}, expected (N, 3) points")
    else:
        kind = args.format or format_of(scan)
        try:
            coord = make_scan(read_fields(scan, kind)).coord
        except ValueError as error:
            raise ValueError(f"{scan}: {error}") from error
        forward = forward or ("y" if kind == "nuscenes" else "x")
    of_scan = none
    if truth is not None:
        of_scan = _of(truth, wanted, args.truth)
    elif scan.is_dir() and (scan / "boxes.npy").is_file():
        of_scan = read_street(scan / "boxes.npy").boxes
    elif found is None:
        raise ValueError("give --truth, --results or both: there are no boxes to draw")
    of_detector = none if found is None else _of(found, wanted, args.results).above(args.score)
    if forward == "y":
        coord = np.stack([coord[:, 1], -coord[:, 0], coord[:, 2]], 1)
        of_scan, of_detector = _ahead(of_scan), _ahead(of_detector)
    return _Drawn(args.scan_id or _short(scan), coord.astype(np.float64), of_scan, of_detector)


def _of(frames: Sequence[Frame], wanted: str, file: Path) -> Boxes:
    """A file of one scan's boxes needs no name."""
    named = [frame for frame in frames if frame.names]
    if len(frames) == 1 and (not named or file.suffix in (".txt", ".npy")):
        return frames[0].boxes
    return find_frame(frames, wanted, file).boxes


def _ahead(boxes: Boxes) -> Boxes:
    """With +y turned to +x."""
    box = boxes.box.copy()
    box[:, 0], box[:, 1], box[:, 6] = boxes.box[:, 1], -boxes.box[:, 0], box[:, 6] - np.pi / 2
    return replace(boxes, box=box)


def _short(scan: Path) -> str:
    name = scan.resolve().name if scan.is_dir() else scan.name
    return name if len(name) <= 28 else f"…{name[-27:]}"
