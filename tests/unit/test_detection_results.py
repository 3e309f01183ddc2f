"""Boxes read from the files of detectors and data sets: the same ones, whatever the format."""

import json
import os
import pickle
import sys
import types

import numpy as np
import pytest
import torch

from dos_plugin.detection.boxes import find_frame, moved
from dos_plugin.detection.results import find_poses, read_frames
from dos_plugin.scenes.classes import CAR, CONE
from dos_plugin.unpickle import read_pickle
from tests.nuscenes_tables import CLASSES, write_nuscenes

BOXES = np.array([
    [10.0, 2.0, -1.0, 4.0, 1.8, 1.5, 0.3],
    [-5.0, 7.0, -0.5, 0.8, 0.6, 1.8, -2.0],
])  # fmt: skip
SCORES, NAMES = np.array([0.9, 0.4]), ["car", "pedestrian"]


def dump(path, content):
    path.write_bytes(pickle.dumps(content))
    return path


def same(boxes, box=BOXES, label=NAMES, score=None):
    np.testing.assert_allclose(boxes.box[:, :6], box[:, :6], atol=1e-5)
    turned = boxes.box[:, 6] - box[:, 6]
    np.testing.assert_allclose(np.angle(np.exp(1j * turned)), 0, atol=1e-5)
    assert boxes.label == tuple(label)
    if score is None:
        assert boxes.score is None
    else:
        np.testing.assert_allclose(boxes.score, score, atol=1e-6)


@pytest.fixture(scope="module")
def nuscenes(tmp_path_factory):
    return write_nuscenes(tmp_path_factory.mktemp("nuscenes") / "root")


@pytest.fixture(scope="module")
def infos(nuscenes):
    """Rows of MMDetection3D's infos, made by matrices apart from the reader."""
    return pickle.loads((nuscenes / "nuscenes_infos_val.pkl").read_bytes())["data_list"]


def expected(info):
    rows = [row for row in info["instances"] if row["bbox_3d_isvalid"]]
    box = np.array([[*row["bbox_3d"], *row["velocity"]] for row in rows])
    return box, [CLASSES[row["bbox_label_3d"]] for row in rows]


def submission(nuscenes):
    """Perfect boxes of all samples as a submission, out of the tables' rows."""
    tables = nuscenes / "v1.0-mini"
    rows = {
        name: json.loads((tables / f"{name}.json").read_text())
        for name in ("sample_annotation", "instance", "category")
    }
    category = {row["token"]: row["name"] for row in rows["category"]}
    names = {row["token"]: category[row["category_token"]] for row in rows["instance"]}
    short = {
        "vehicle.car": "car", "human.pedestrian.adult": "pedestrian", "vehicle.truck": "truck",
        "movable_object.trafficcone": "traffic_cone", "vehicle.bus.rigid": "bus",
        "vehicle.trailer": "trailer", "vehicle.construction": "construction_vehicle",
        "vehicle.bicycle": "bicycle", "vehicle.motorcycle": "motorcycle",
        "movable_object.barrier": "barrier",
    }  # fmt: skip
    results: dict = {}
    for row in rows["sample_annotation"]:
        name = names[row["instance_token"]]
        if name not in short or not row["num_lidar_pts"]:
            continue
        results.setdefault(row["sample_token"], []).append(
            dict(sample_token=row["sample_token"], translation=row["translation"], size=row["size"],
                 rotation=row["rotation"], velocity=[3.0, 0.0], detection_name=short[name],
                 detection_score=0.5, attribute_name="")
        )  # fmt: skip
    return dict(meta={}, results=results)


def test_tables_and_infos_of_nuscenes_agree(nuscenes, infos):
    of_tables = read_frames(nuscenes / "v1.0-mini")
    of_infos = read_frames(nuscenes / "nuscenes_infos_val.pkl")
    assert len(of_tables) == 6 and len(of_infos) == 3
    for info, frame in zip(infos, of_infos):
        box, label = expected(info)
        assert "animal" not in label and len(label) > 15
        same(frame.boxes, box, label)
        np.testing.assert_allclose(frame.boxes.box[:, 7:], box[:, 7:])
        same(find_frame(of_tables, info["token"], "tables").boxes, box, label)
        # By the name of the scan file, wherever it lies.
        scan = f"/elsewhere/{info['lidar_points']['lidar_path']}"
        assert find_frame(of_tables, scan, "tables").names[0] == info["token"]
        assert find_frame(of_infos, scan, "infos") is frame


def test_submission_comes_into_the_frame_of_the_lidar(nuscenes, infos, tmp_path):
    file = tmp_path / "results_nusc.json"
    file.write_text(json.dumps(submission(nuscenes)))
    for source in (nuscenes / "v1.0-mini", nuscenes / "nuscenes_infos_val.pkl"):
        poses = find_poses(source)
        frames = read_frames(file, poses=poses)
        assert len(frames) == len(poses)
        for info in infos:
            box, label = expected(info)
            boxes = find_frame(frames, info["token"], file).boxes
            same(boxes, box, label, np.full(len(box), 0.5))
            matrix = np.linalg.inv(
                np.array(info["ego2global"]) @ np.array(info["lidar_points"]["lidar2ego"])
            )
            speed = (matrix[:3, :3] @ [3.0, 0, 0])[:2]
            np.testing.assert_allclose(boxes.box[:, 7:], np.tile(speed, (len(box), 1)), atol=1e-9)


def test_poses_of_the_other_infos(nuscenes, infos, tmp_path):
    """Pointcept's and OpenPCDet's: two matrices the other way round."""
    rows = [
        dict(
            token=info["token"],
            lidar_path="samples/LIDAR_TOP/" + info["lidar_points"]["lidar_path"],
            ref_from_car=np.linalg.inv(info["lidar_points"]["lidar2ego"]),
            car_from_global=np.linalg.inv(info["ego2global"]),
            gt_boxes=np.zeros((0, 9)),
            gt_names=np.array([]),
        )
        for info in infos
    ]
    file = dump(tmp_path / "infos.pkl", rows)
    ours, tables = find_poses(file), find_poses(nuscenes / "v1.0-mini")
    for token, pose in ours.items():
        np.testing.assert_allclose(pose.matrix, tables[token].matrix, atol=1e-9)
        assert pose.file == tables[token].file
    assert all(len(frame.boxes) == 0 for frame in read_frames(file))
    assert find_poses(tmp_path) is None


@pytest.fixture
def lidar_boxes(monkeypatch):
    """A class by the name of MMDetection3D's, which holds the middle of the underside."""
    name = "mmdet3d.structures.bbox_3d.lidar_box3d"

    def make(kind="LiDARInstance3DBoxes"):
        module = types.ModuleType(name)
        cls = type(kind, (), {"__module__": name, "__qualname__": kind})
        setattr(module, kind, cls)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(sys.modules, "mmdet3d", types.ModuleType("mmdet3d"))
        return cls

    return make


def mmdet3d_row(cls, **names):
    boxes = cls()
    boxes.tensor = torch.tensor(BOXES, dtype=torch.float32)
    boxes.tensor[:, 2] -= boxes.tensor[:, 5] / 2
    boxes.box_dim, boxes.with_yaw = 7, True
    found = dict(bboxes_3d=boxes, labels_3d=torch.tensor([0, 1]), scores_3d=torch.tensor(SCORES))
    return dict(pred_instances_3d=found, pred_instances={}, box_type_3d=cls, **names)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_results_of_mmdet3d(lidar_boxes, tmp_path, protocol, monkeypatch):
    rows = [mmdet3d_row(lidar_boxes(), sample_idx=7, lidar_path="a/b/000007.pcd.bin")]
    file = tmp_path / "results.pkl"
    file.write_bytes(pickle.dumps(rows, protocol=protocol))
    for name in [name for name in sys.modules if name.startswith("mmdet3d")]:
        monkeypatch.delitem(sys.modules, name)  # nothing of the program is needed to read them
    (frame,) = read_frames(file, classes=NAMES)
    same(frame.boxes, score=SCORES)
    assert {"7", "000007"} <= set(frame.names)
    assert read_frames(file)[0].boxes.label == ("class 0", "class 1")


def test_results_of_mmdet3d_in_another_frame_are_refused(lidar_boxes, tmp_path):
    file = dump(tmp_path / "r.pkl", [mmdet3d_row(lidar_boxes("CameraInstance3DBoxes"))])
    message = r"r.pkl: \[0\].*bboxes_3d: got 'CameraInstance3DBoxes', expected LiDAR"
    with pytest.raises(ValueError, match=message):
        read_frames(file)


def test_results_and_infos_of_openpcdet(tmp_path):
    row = dict(name=np.array(NAMES), score=SCORES, boxes_lidar=BOXES, pred_labels=np.array([1, 2]),
               frame_id="n015__LIDAR_TOP__1.pcd", metadata={"token": "abc"})  # fmt: skip
    empty = dict(name=np.zeros(0), score=np.zeros(0), boxes_lidar=np.zeros((0, 7)), frame_id="2")
    file = dump(tmp_path / "result.pkl", [row, empty])
    frames = read_frames(file)
    for name in ("abc", "samples/LIDAR_TOP/n015__LIDAR_TOP__1.pcd.bin"):
        same(find_frame(frames, name, file).boxes, score=SCORES)
    assert len(find_frame(frames, "2", file).boxes) == 0

    info = dict(token="abc", lidar_path="samples/LIDAR_TOP/1.pcd.bin",
                gt_boxes=np.column_stack([np.repeat(BOXES, [1, 2], 0), np.full((3, 2), np.nan)]),
                gt_names=np.array([*NAMES, "ignore"]))  # fmt: skip
    (frame,) = read_frames(dump(tmp_path / "infos.pkl", [info]))
    same(frame.boxes)
    annos = dict(gt_boxes_lidar=BOXES, name=np.array([*NAMES, "DontCare"]))
    info = dict(point_cloud=dict(lidar_idx="000003"), annos=annos)
    (frame,) = read_frames(dump(tmp_path / "kitti.pkl", [info]))
    same(frame.boxes)
    assert frame.names == ("000003",)


CALIB = """P0: 1 0 0 0 0 1 0 0 0 0 1 0
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_velo_to_cam: 0 -1 0 0.1 0 0 -1 -0.2 1 0 0 -0.3

"""


@pytest.fixture
def kitti(tmp_path):
    """Labels by hand: x of the camera is -y, its y is -z, its z is x, and a shift."""
    for folder in ("label_2", "calib"):
        (tmp_path / folder).mkdir()
    (tmp_path / "calib/000003.txt").write_text(CALIB)
    lines = ["DontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10"]
    for name, (x, y, z, length, width, height, yaw) in zip(NAMES, BOXES):
        place = f"{-y + 0.1} {-z - 0.2 + height / 2} {x - 0.3}"
        lines.append(
            f"{name} 0.00 0 0 1 2 3 4 {height} {width} {length} {place} {-np.pi / 2 - yaw}"
        )
    (tmp_path / "label_2/000003.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_labels_and_results_of_kitti(kitti):
    labels = kitti / "label_2"
    for path in (labels, labels / "000003.txt"):
        (frame,) = read_frames(path)
        same(frame.boxes)
        assert find_frame([frame], "velodyne/000003.bin", path) is frame
    other = kitti / "out.txt"
    lines = (labels / "000003.txt").read_text().splitlines()[1:]
    other.write_text("\n".join(f"{line} {score}" for line, score in zip(lines, SCORES)))
    (frame,) = read_frames(other, calib=kitti / "calib/000003.txt")
    same(frame.boxes, score=SCORES)


def test_infos_of_mmdet3d_for_kitti_are_in_the_frame_of_the_camera(kitti, tmp_path):
    lidar2cam = np.array([[0, -1, 0, 0.1], [0, 0, -1, -0.2], [1, 0, 0, -0.3], [0, 0, 0, 1]])
    instances = [
        dict(bbox_3d=[-y + 0.1, -z - 0.2 + h / 2, x - 0.3, length, h, w, -np.pi / 2 - yaw],
             bbox_label_3d=k)
        for k, (x, y, z, length, w, h, yaw) in enumerate(BOXES)
    ] + [dict(bbox_3d=[-1] * 7, bbox_label_3d=-1)]  # fmt: skip
    row = dict(sample_idx=3, lidar_points=dict(lidar_path="000003.bin"), instances=instances,
               images=dict(CAM2=dict(lidar2cam=lidar2cam.tolist())))  # fmt: skip
    meta = dict(dataset="kitti", categories=dict(car=0, pedestrian=1))
    (frame,) = read_frames(dump(tmp_path / "i.pkl", dict(metainfo=meta, data_list=[row])))
    same(frame.boxes)
    meta["dataset"] = "waymo"
    with pytest.raises(
        ValueError, match=r"metainfo.dataset: got 'waymo', expected one of nuscenes"
    ):
        read_frames(dump(tmp_path / "i.pkl", dict(metainfo=meta, data_list=[row])))


def test_boxes_of_streets(tmp_path):
    scene = tmp_path / "val/scene-00000"
    scene.mkdir(parents=True)
    np.save(scene / "boxes.npy", np.column_stack([BOXES, [CAR, CONE]]).astype(np.float32))
    for path in (scene / "boxes.npy", scene, tmp_path / "val"):
        (frame,) = read_frames(path)
        same(frame.boxes, label=["car", "cone"])
        assert find_frame([frame], str(scene), path) is frame
    np.save(scene / "boxes.npy", BOXES)
    with pytest.raises(ValueError, match=r"boxes.npy: shape: got \(2, 7\), expected \(K, 8\)"):
        read_frames(scene)


def test_moved_boxes_turn_heading_and_velocity():
    box = np.array([[1.0, 0, 0, 4, 2, 1, 0.1, 2.0, 0.0]])
    matrix = np.array([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
    expected = [[5, 7, 7, 4, 2, 1, 0.1 + np.pi / 2, 0, 2]]
    np.testing.assert_allclose(moved(box, matrix), expected, atol=1e-12)


class _Harmful:
    def __reduce__(self):
        return os.system, ("exit 3",)


class _Hidden:
    """Harm within the bytes of a tensor's storage, which torch would unpickle."""

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


def test_pickles_that_could_run_code_are_refused(tmp_path):
    file = dump(tmp_path / "r.pkl", [dict(boxes_lidar=_Harmful())])
    with pytest.raises(ValueError, match=r"r.pkl: holds \w+.system, which could run code"):
        read_pickle(file)
    for name in ("eval", "getattr", "exec"):
        file.write_bytes(f"c__builtin__\n{name}\n.".encode())
        with pytest.raises(ValueError, match=f"holds builtins.{name}"):
            read_pickle(file)
    inner, hidden = tmp_path / "inner", _Hidden()
    torch.save(_Harmful(), inner)
    hidden.content = inner.read_bytes()
    with pytest.raises(ValueError, match="holds other things in place of a tensor's bytes"):
        read_pickle(dump(file, hidden))
    # An attribute of something admitted is none of those either.
    file.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x10load.__globals__\x93.")
    with pytest.raises(ValueError, match="holds numpy.load"):
        read_pickle(file)


def test_pickles_keep_arrays_tensors_and_paths(tmp_path):
    from pathlib import PurePosixPath

    content = dict(
        tensor=torch.arange(6.0).reshape(2, 3)[:, 1:], array=np.arange(4)[::2],
        number=np.float32(2), kinds={1, 2}, path=PurePosixPath("a/b"),
        text=np.array(["a", None], dtype=object),
    )  # fmt: skip
    for protocol in (2, 4, 5):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        found = read_pickle(tmp_path / "a.pkl")
        assert found["tensor"].tolist() == [[1, 2], [4, 5]] and found["array"].tolist() == [0, 2]
        assert found["text"].tolist() == ["a", None] and found["path"] == "a/b"
        assert found["number"] == 2 and found["kinds"] == {1, 2}


def wrong_pickles():
    ok = dict(frame_id="1", name=np.array(NAMES), score=SCORES, boxes_lidar=BOXES)
    yield "no list", 3, r"keys: got 3, expected 'metainfo' and 'data_list' of MMDetection3D, or a"
    yield "other", dict(a=1), r"keys: got \['a'\], expected 'metainfo'"
    yield "entry", [dict(a=1)], r"keys of entry 0: got \['a'\], expected one of pred_instances_3d"
    yield "no score", [{k: v for k, v in ok.items() if k != "score"}], r"\[0\]: got .*'score' among"
    yield "names", [ok | dict(name=["car"])], r"labels of \[0\].boxes_lidar: got 1, expected 2, one"
    yield (
        "columns",
        [ok | dict(boxes_lidar=BOXES[:, :5])],
        r"shape: got \(2, 5\), expected \(K, 7\)",
    )
    nan = BOXES.copy()
    nan[1, 0] = np.nan
    yield (
        "nan",
        [ok | dict(boxes_lidar=nan)],
        r"\[0\].boxes_lidar, box 1: got \[nan, .*expected num",
    )
    yield (
        "size",
        [ok | dict(boxes_lidar=-BOXES)],
        r"box 0, lengths: got \[-4.0.*expected 0 m or more",
    )
    yield "score", [ok | dict(score=["a", "b"])], r"scores of \[0\].boxes_lidar: got \['a', 'b'\]"


@pytest.mark.parametrize("content, message", [w[1:] for w in wrong_pickles()],
                         ids=[w[0] for w in wrong_pickles()])  # fmt: skip
def test_wrong_pickles(content, message, tmp_path):
    with pytest.raises(ValueError, match=r"r\.pkl: .*" + message):
        read_frames(dump(tmp_path / "r.pkl", content))


def test_wrong_files(nuscenes, kitti, tmp_path):
    poses = find_poses(nuscenes / "v1.0-mini")
    file = tmp_path / "r.json"

    def fails(message, content=None, **options):
        if content is not None:
            file.write_text(json.dumps(content))
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_frames(file, **options)

    fails("r.json: no such file or folder", poses=poses)
    good = submission(nuscenes)
    fails("boxes in the global frame, which needs the poses.*--poses", good)
    fails(r"r.json: keys: got \['a'\], expected 'results' and 'meta'", dict(a=1), poses=poses)
    fails("first token of results: got 'x', expected one of the 6", dict(results=dict(x=[])),
          poses=poses)  # fmt: skip
    token = next(iter(good["results"]))
    row = good["results"][token][0]
    for key, value, message in (
        ("size", [1, 2], r"size of box 0: got \[1, 2\], expected 3 numbers"),
        ("rotation", [0, 0, 0, 0], r"rotation of box 0: got .*expected a quaternion w, x, y, z"),
        ("translation", [1, 2, "c"], "translation of box 0: got .*expected 3 numbers"),
    ):
        fails(message, dict(results={token: [row | {key: value}]}), poses=poses)
    del row["detection_score"]
    fails("keys of a box: got .*'detection_score' as well", good, poses=poses)
    file.write_text("{")
    fails("r.json: no JSON, or cut off", poses=poses)

    calib, label = kitti / "calib/000003.txt", kitti / "label_2/000003.txt"
    for text, message in (
        ("Car 1 2\n", "000003.txt: line 1: got 'Car 1 2', expected 15 columns, or 16"),
        ("Car" + " x" * 14, "line 1: got .*expected a type and numbers"),
    ):
        label.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_frames(label)
    for text, message in (
        ("P0: 1", r"calib/000003.txt: keys: got \['P0'\], expected 'R0_rect' among them"),
        (CALIB.replace("-0.3", ""), "Tr_velo_to_cam: got .*expected 12 numbers"),
    ):
        calib.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_frames(label)
    calib.unlink()
    with pytest.raises(FileNotFoundError, match=r"expected KITTI's calibration.*--calib"):
        read_frames(label)
    with pytest.raises(FileNotFoundError, match="no boxes in this folder"):
        read_frames(kitti / "calib")
    with pytest.raises(ValueError, match=r"suffix: got '\.csv'"):
        (tmp_path / "a.csv").touch()
        read_frames(tmp_path / "a.csv")


def test_frames_are_found_by_name_or_the_error_lists_some(tmp_path):
    row = dict(name=NAMES, score=SCORES, boxes_lidar=BOXES)
    file = dump(tmp_path / "r.pkl", [row | dict(frame_id=name) for name in ("a", "b", "b")])
    frames = read_frames(file)
    assert find_frame(frames, "x/a.bin", file) is frames[0]
    with pytest.raises(ValueError, match="2 scans are called 'b'"):
        find_frame(frames, "b", file)
    with pytest.raises(ValueError, match=r"no boxes of 'c' among those of 3 scans: a, b, b; .*-id"):
        find_frame(frames, "c", file)


def test_boxes_and_samples_of_the_real_mmdet3d(tmp_path):
    pytest.importorskip("mmengine.structures")
    pytest.importorskip("mmcv")
    from tests.mmcv_operators import install

    install()
    pytest.importorskip("mmdet3d")
    from mmdet3d.structures import Box3DMode, Det3DDataSample, LiDARInstance3DBoxes
    from mmengine.structures import InstanceData

    # Given by their centres, stored by their undersides.
    boxes = LiDARInstance3DBoxes(torch.tensor(BOXES).float(), origin=(0.5, 0.5, 0.5))
    names = dict(lidar_path="a/b.pcd.bin", sample_idx=3)
    kinds = dict(box_type_3d=LiDARInstance3DBoxes, box_mode_3d=Box3DMode.LIDAR)
    sample = Det3DDataSample(metainfo=names | kinds)
    sample.pred_instances_3d = InstanceData(
        bboxes_3d=boxes, scores_3d=torch.tensor(SCORES), labels_3d=torch.tensor([0, 1])
    )
    for content in (sample, sample.to_dict()):
        (frame,) = read_frames(dump(tmp_path / "r.pkl", [content]), classes=NAMES)
        same(frame.boxes, score=SCORES)
        assert frame.names == ("a/b.pcd.bin", "b", "3")
