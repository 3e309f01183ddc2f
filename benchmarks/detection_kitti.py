"""A detector of cars on real scans of KITTI, by drive: from DOS and from random weights.

The demo's detector (objdet-dos-v1m1-9a-demo.py) learns from the frames of all other drives and is
scored on one drive, and the other way round. Frames are cut to what the camera sees, where the
labels are. Average precision is that of nuScenes, by distance of centres: KITTI's own needs
compiled operators. Twenty-six frames are few: look at the seeds and drives, not at the means.

    python benchmarks/detection_kitti.py --weight exp/CHECKPOINT.pth
"""

import json
import statistics
from pathlib import Path

import numpy as np

import common
from detection import RANGES, finished
from dos_plugin.detection.kitti import read_calibration, read_labels

CORNERS = (0.0, -25.6, -4.8, 51.2, 25.6, 4.8)  # metres, of the sensor's frame
IMAGE = (1242, 375)  # pixels; frames differ by some
CAR, OTHER = 0, 1  # in boxes.npy; others are no background


def seen(coord: np.ndarray, calib: Path) -> np.ndarray:
    """Which points (N, 3) the left colour camera sees."""
    lines = (line.partition(":") for line in calib.read_text().splitlines())
    (numbers,) = (values for name, _, values in lines if name == "P2")
    to_image = np.array(numbers.split(), float).reshape(3, 4) @ read_calibration(calib)
    pixel = np.column_stack([coord, np.ones(len(coord))]) @ to_image.T
    place = pixel[:, :2] / np.maximum(pixel[:, 2:], 1e-6)
    return (pixel[:, 2] > 0) & (place >= 0).all(1) & (place < IMAGE).all(1)


def write_frames(real: Path, root: Path) -> dict[str, list[str]]:
    """Scene folders of all frames; names of the frames by drive."""
    for file in sorted((real / "training/label_2").glob("*.txt")):
        folder = root / file.stem
        if (folder / "boxes.npy").exists():
            continue
        scan = np.fromfile(real / f"training/velodyne/{file.stem}.bin", np.float32).reshape(-1, 4)
        scan = scan[seen(scan[:, :3], real / f"training/calib/{file.name}")]
        (frame,) = read_labels(file)
        labels = [CAR if name == "Car" else OTHER for name in frame.boxes.label]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "coord.npy", scan[:, :3])
        np.save(folder / "strength.npy", scan[:, 3:])
        np.save(folder / "boxes.npy", np.column_stack([frame.boxes.box[:, :7], labels]))
    return json.loads((real / "frames.json").read_text())


def split(frames: Path, drives: dict[str, list[str]], held_out: str, root: Path) -> Path:
    """A data root of links: the frames of one drive to score on, all others to learn from."""
    for drive, names in drives.items():
        for name in names:
            link = root / ("val" if drive == held_out else "train") / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to((frames / name).resolve())
    return root


def main() -> None:
    """Run, print, write."""
    options = common.parser(__doc__)
    real = Path("~/.cache/dos-plugin/real/kitti").expanduser()
    options.add_argument("--real", type=Path, default=real, help="frames, labels, frames.json")
    options.add_argument("--weight", type=Path, required=True, help="checkpoint of the demo's kind")
    options.add_argument("--out", type=Path, default=Path("exp/detection-kitti"))
    options.add_argument("--drives", nargs="+", default=["drive_0005", "drive_0048"])
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--epoch", type=int, default=10, help="passes over the frames")
    options.add_argument("--batch-size", type=int, default=1)
    options.add_argument("--rate", type=float, default=0.001, help="of the backbone")
    args = options.parse_args()
    drives = write_frames(args.real, args.out / "frames")
    corners = ",".join(map(str, CORNERS))
    settings = [
        *(f"{p}.point_cloud_range=[{corners}]" for p in RANGES),
        *("data.names=[car]", "model.num_classes=1", "model.nms_limit=[2.0]"),
        *(f"data.{part}.classes=[{CAR}]" for part in ("train", "val")),
        # nothing to see behind and beside the camera
        *("data.train.transform.0.angle=[-0.25,0.25]", "data.train.transform.2.axes=[1]"),
        "hooks.4.ranges.car=51.2",
        *(f"epoch={args.epoch}", f"batch_size={args.batch_size}"),
        *(f"param_dicts.0.lr={args.rate}", f"scheduler.max_lr=0.003,{args.rate}"),
    ]
    rows, summary = [], {}
    for drive in args.drives:
        root = split(args.out / "frames", drives, drive, args.out / drive).resolve()
        for side in ("DOS", "random"):
            weight = args.weight.resolve() if side == "DOS" else None
            found = [
                finished(
                    f"{drive}-{side}-{seed}",
                    args.out,
                    [
                        *(f"weight={weight}", f"seed={seed}", *settings),
                        *(f"data.{part}.data_root={root}" for part in ("train", "val")),
                    ],
                )[0]
                for seed in args.seeds
            ]
            rows.append(dict(drive=drive, weights=side, AP=" ".join(f"{ap:.1f}" for ap in found)))
            summary[f"AP {drive} {side}"] = statistics.mean(found)
    common.print_table(rows)
    common.write_json(args.json, rows, summary)


if __name__ == "__main__":
    main()
