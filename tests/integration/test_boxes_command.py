"""dos-plugin boxes as it is typed, on scans of a street, of nuScenes and of KITTI."""

import pickle

import numpy as np
import pytest
from PIL import Image

from dos_plugin import cli
from dos_plugin.detection.results import read_frames
from dos_plugin.drawing.boxes import TRUTH, class_colour
from dos_plugin.drawing.render import BACKGROUND
from dos_plugin.drawing.sheet import BAND, SQUARE
from dos_plugin.scenes.classes import CAR, PEDESTRIAN
from tests.nuscenes_tables import write_nuscenes

# A car ahead of the sensor, 16 m away, and a person on its left.
STREET = np.array([
    [16.0, 0.0, -1.0, 4.0, 2.0, 1.6, 0.0, CAR],
    [0.0, 12.0, -0.9, 0.8, 0.8, 1.8, 0.0, PEDESTRIAN],
], dtype=np.float32)  # fmt: skip


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    root = tmp_path_factory.mktemp("streets")
    rng = np.random.default_rng(0)
    for k in range(3):
        scene = root / f"val/scene-{k:05d}"
        scene.mkdir(parents=True)
        ground = np.column_stack([rng.uniform(-30, 30, (4000, 2)), np.full(4000, -1.8)])
        np.save(scene / "coord.npy", ground.astype(np.float32))
        np.save(scene / "boxes.npy", STREET[: k + 1])
    return root


@pytest.fixture(scope="module")
def nuscenes(tmp_path_factory):
    return write_nuscenes(tmp_path_factory.mktemp("nuscenes") / "root")


def run(capsys, *arguments, status=0):
    assert cli.main(["boxes", *map(str, arguments)]) == status
    printed = capsys.readouterr()
    return printed.err.strip() if status else printed.out


def near(image, colour, x, y, span=80.0, row=0, reach=4):
    """Whether the colour is at a place of the bird's-eye view, x to the right, y up, metres.

    Half of it will do, as a line between two pixels gives both a part.
    """
    column = int(SQUARE / 2 + x * SQUARE / span)
    line = int(BAND + row * (SQUARE + 6) + SQUARE / 2 - y * SQUARE / span)
    part = image[line - reach : line + reach + 1, column - reach : column + reach + 1]
    if colour == TRUTH:  # above the grey of the ground, and no blue
        return bool((part.min(-1) > 110).any())
    limit = 0.5 * np.abs(np.subtract(colour, BACKGROUND)).sum()
    return bool((np.abs(part.astype(int) - colour).sum(-1) < limit).any())


def picture(path):
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"))


def result_of(frames, path, shift=0.0):
    """Boxes of frames as results of OpenPCDet, in a way that one can recognise."""
    rows = []
    for frame in frames:
        box = frame.boxes.box[:, :7] + np.array([shift, 0, 0, 0, 0, 0, 0])
        score = np.linspace(0.9, 0.2, len(box)) if len(box) > 1 else np.full(len(box), 0.9)
        name = np.array(frame.boxes.label)
        rows.append(dict(frame_id=frame.names[-1], name=name, score=score, boxes_lidar=box))
    path.write_bytes(pickle.dumps(rows))
    return path


def test_a_street_with_its_own_boxes(streets, tmp_path, capsys):
    out = tmp_path / "new" / "street.png"
    text = run(capsys, streets / "val/scene-00001", "--out", out)
    assert "scene-00001: 2 true" in text and str(out) in text
    image = picture(out)
    car, person = class_colour("car"), class_colour("pedestrian")
    assert near(image, car, 14, 0) and near(image, car, 18, 0) and near(image, person, 0, 12)
    assert not near(image, car, 5, 0) and not near(image, person, 0, -12)


def test_several_streets_with_results(streets, tmp_path, capsys):
    results = result_of(read_frames(streets / "val"), tmp_path / "result.pkl", shift=-6.0)
    out = tmp_path / "sheet.png"
    options = ["--split", "val", "--results", results, "--out", out, "--span", "60"]
    text = run(capsys, streets, *options, "--count", "3", "--score", "0.5")
    assert "scene-00000: 1 true, 1 found" in text and "scene-00002: 2 true, 1 found" in text
    image = picture(out)
    assert image.shape[0] == BAND + 3 * (SQUARE + 6) - 6 + BAND
    for row in range(3):  # the true car white at 16 m, the other one where the results have it
        assert near(image, class_colour("car"), 8, 0, 60, row)
        assert near(image, TRUTH, 18, 0.5, 60, row, 8)
        assert not near(image, class_colour("pedestrian"), -6, 12, 60, row)


def test_truth_and_results_of_nuscenes(nuscenes, tmp_path, capsys):
    tables = nuscenes / "v1.0-mini"
    scan = sorted((nuscenes / "samples/LIDAR_TOP").glob("scene-0103*"))[1]
    found = result_of(read_frames(tables), tmp_path / "result.pkl")
    pictures = {}
    for name, truth in {"tables": tables, "infos": nuscenes / "nuscenes_infos_val.pkl"}.items():
        out = tmp_path / f"{name}.png"
        text = run(capsys, scan, "--truth", truth, "--results", found, "--out", out)
        pictures[name] = picture(out)
    np.testing.assert_array_equal(pictures["tables"], pictures["infos"])
    (frame,) = [f for f in read_frames(tables) if any(scan.name in name for name in f.names)]
    assert f"{len(frame.boxes)} true" in text
    # y of the sensor is ahead, to the right in the picture: fronts of the boxes that were found.
    box = frame.boxes.box[np.linspace(0.9, 0.2, len(frame.boxes)) >= 0.3]
    front = box[:, :2] + box[:, 3:4] / 2 * np.stack([np.cos(box[:, 6]), np.sin(box[:, 6])], 1)
    colours = [class_colour(name) for name in frame.boxes.label]
    image = pictures["tables"]
    hit = [near(image, colour, y, -x, reach=2) for (x, y), colour in zip(front, colours)]
    assert np.mean(hit) > 0.9
    text = run(capsys, scan, "--truth", tables, "--scan-id", "0" * 32, "--out", out, status=2)
    assert "no boxes of '000" in text and "among those of 6 scans" in text


def test_labels_of_kitti(tmp_path, capsys):
    for folder in ("velodyne", "label_2", "calib"):
        (tmp_path / folder).mkdir()
    rng = np.random.default_rng(0)
    for name in ("000003", "000004"):
        points = np.column_stack([rng.uniform(-30, 30, (3000, 2)), np.zeros((3000, 2))])
        points.astype(np.float32).tofile(tmp_path / f"velodyne/{name}.bin")
        (tmp_path / f"calib/{name}.txt").write_text(
            "R0_rect: 1 0 0 0 1 0 0 0 1\nTr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 0\n"
        )
        line = f"Car 0 0 0 0 0 0 0 1.5 2 4 -5 1.7 16 {-np.pi / 2}\n"
        (tmp_path / f"label_2/{name}.txt").write_text(line)
    out = tmp_path / "kitti.png"
    options = ["--truth", tmp_path / "label_2", "--out", out, "--count", "2"]
    assert "000004.bin: 1 true" in run(capsys, tmp_path / "velodyne", *options)
    image = picture(out)
    for row in range(2):
        assert near(image, class_colour("car"), 14, 5, row=row)
        assert near(image, class_colour("car"), 18, 5, row=row)


def test_what_is_refused(streets, nuscenes, tmp_path, capsys):
    out, scene = tmp_path / "x.png", streets / "val/scene-00000"
    submission = tmp_path / "results_nusc.json"
    submission.write_text('{"meta": {}, "results": {}}')
    bare = tmp_path / "bare"
    bare.mkdir()
    np.save(bare / "coord.npy", np.zeros((5, 3)))
    for arguments, message in (
        ([streets], "scenes lie in its folders val; name one with --split"),
        ([tmp_path / "none.bin"], "no such file or folder, expected a scan"),
        ([bare], "give --truth, --results or both"),
        ([scene, "--results", submission], "--poses"),
        ([scene, "--poses", scene], "has no poses of nuScenes"),
        ([scene, "--truth", tmp_path / "a.pkl"], "no such file or folder, expected boxes"),
        ([scene, "--count", "0"], "--count: got 0, expected 1 or more"),
        ([scene, "--span", "0"], "--span: got 0, expected more than 0 m"),
        ([streets / "val", "--scan-id", "a"], "holds 3 scans, name one of them as SCAN"),
    ):
        assert message in run(capsys, *arguments, "--out", out, status=2)
    assert "ends in .png" in run(capsys, scene, "--out", tmp_path / "x.jpg", status=2)
    assert not out.exists()
