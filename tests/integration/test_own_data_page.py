"""Every code block of docs/own-data.md, and every command of its table of sensors, does what it
says."""

import argparse
import json
import re
import shlex
import shutil
from pathlib import Path

import laspy
import numpy as np
import pyarrow
import pytest
from plyfile import PlyData, PlyElement
from pyarrow import feather
from rosbags.rosbag2 import StoragePlugin

pytest.importorskip("mmengine", reason="the embedded host needs the extra 'demo'")

from dos_plugin import cli
from dos_plugin.ingest.labels import read_label_map
from dos_plugin.minihost.config import add_arguments, load_config
from tests.unit.test_ingest_flat import scan
from tests.unit.test_ingest_labels import SEMANTIC_KITTI, TOKENS
from tests.unit.test_ingest_readers import write_pcd
from tests.unit.test_ingest_recordings import stamps, write_bag, write_ros2

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/own-data.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SENSORS = [
    *("Velodyne", "Ouster", "Hesai", "Livox", "RoboSense", "Innoviz", "Luminar", "Waymo"),
    *("nuScenes", "Argoverse 2", "survey, mobile mapping"),
]
COUNT = 400


def named(count=COUNT, **more):
    """A scan as a structured array with x y z and the columns given."""
    rows = scan(count)
    columns = {"x": rows[:, 0], "y": rows[:, 1], "z": rows[:, 2], **more}
    array = np.zeros(count, [(name, "<f4") for name in columns])
    for name, values in columns.items():
        array[name] = values
    return array


def table():
    """Sensor -> its command."""
    rows = re.findall(r"^\| ([^|]+) \|[^|]+\| `(dos-plugin ingest [^`]+)` \|$", PAGE, re.MULTILINE)
    return dict(rows)


def lines():
    """The commands of the blocks, those over several lines as one."""
    for language, text in BLOCKS:
        if not language and text.startswith("dos-plugin"):
            for line in text.replace("\\\n", " ").splitlines():
                yield shlex.split(line, comments=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files that the page names."""
    root = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_files()
    return root


@pytest.fixture
def data(files, monkeypatch):
    """They are in the working folder, and nothing has been made of them yet."""
    monkeypatch.chdir(files)
    shutil.rmtree("data", ignore_errors=True)
    return files


def write_files():
    byte = np.random.default_rng(0).integers(0, 256, COUNT)
    names = ("drive", "velodyne", "hesai", "innoviz", "luminar", "waymo", "rooms", "sequences")
    for name in (*names, "labels", "argoverse2"):
        Path(name).mkdir()
    for number in range(4):
        scan(COUNT, number)[:, :4].astype("<f4").tofile(f"drive/{number}.bin")
        scan(COUNT, number)[:, :4].astype("<f4").tofile(f"velodyne/{number}.bin")
    write_pcd(Path("hesai/0.pcd"), named(intensity=byte, timestamp=0.0, ring=3))
    write_pcd(Path("innoviz/0.pcd"), named(reflectivity=byte))
    write_pcd(Path("luminar/0.pcd"), named(reflectance=byte / 255))
    scan()[:, [0, 1, 2, 3, 6, 5]].astype("<f4").tofile("waymo/0.bin")
    colors = np.column_stack([byte, byte, byte]) / 255
    np.hstack([scan(COUNT)[:, :3], colors]).astype("<f4").tofile("rooms/0.bin")
    scan(COUNT)[:, :4].astype("<f4").tofile("sequences/0.bin")
    np.full(COUNT, 40, "<u4").tofile("labels/0.label")
    Path("semantic-kitti.yaml").write_text(SEMANTIC_KITTI)
    Path("map.yaml").write_text("40: 0\n")
    Path("classes.yaml").write_text("2: 0\n5: 1\n")
    labelled = named(intensity=byte / 255, **{"class": 40})
    PlyData([PlyElement.describe(labelled, "vertex")]).write("scans.ply")
    write_bag(Path("drive.bag"), stamps(6), ["/lidar/points", "/other"])
    write_bag(Path("livox.bag"), stamps(2), ["/livox/lidar"])
    write_bag(Path("robosense.bag"), stamps(6), ["/rslidar_points"])
    write_ouster(Path("ouster.mcap"))
    table = pyarrow.table({name: named()[name].astype(np.float16) for name in "xyz"})
    table = table.append_column("intensity", pyarrow.array(byte.astype(np.uint8)))
    feather.write_feather(table, "argoverse2/0.feather")
    write_nuscenes(Path("nuscenes"))
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.offsets, header.scales = [442_000, 5_411_000, 200], [0.001] * 3
    las = laspy.LasData(header)
    xyz = np.random.default_rng(0).uniform(0, [150, 90, 9], (5000, 3))
    las.x, las.y, las.z = (xyz + header.offsets).T
    las.intensity = np.arange(5000)
    las.classification = np.where(np.arange(5000) % 2, 2, 5)
    las.write("town.laz")


def write_ouster(path):
    topic = "/ouster/points"
    kind = StoragePlugin.MCAP
    folder = write_ros2(Path("ouster"), stamps(6), kind, topic, strength="reflectivity")
    (folder / "ouster.mcap").rename(path)


def write_nuscenes(root):
    for folder in ("samples/LIDAR_TOP", "lidarseg/v1.0-mini", "v1.0-mini"):
        (root / folder).mkdir(parents=True)
    rows = scan(COUNT)[:, :5]
    (rows * [1, 1, 1, 255, 1]).astype("<f4").tofile(root / "samples/LIDAR_TOP/a.pcd.bin")
    np.full(COUNT, 24, np.uint8).tofile(root / f"lidarseg/v1.0-mini/{TOKENS[0]}_lidarseg.bin")
    row = {"token": TOKENS[0], "filename": "samples/LIDAR_TOP/a.pcd.bin"}
    (root / "v1.0-mini/sample_data.json").write_text(json.dumps([row]))
    Path("nuscenes.yaml").write_text("24: 10\n")


def test_the_table_has_these_sensors():
    assert list(table()) == SENSORS


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_command_of_a_sensor(data, sensor):
    assert cli.main(shlex.split(table()[sensor])[1:]) == 0
    scenes = list((data / "data/mine/train").iterdir())
    expected = {"Velodyne": 4, "Ouster": 2, "RoboSense": 2, "Livox": 2, SENSORS[-1]: 4}
    assert len(scenes) == expected.get(sensor, 1)
    for scene in scenes:
        strength = np.load(scene / "strength.npy")
        assert 0 <= strength.min() < 0.2 and strength.max() <= 1
        assert (scene / "segment.npy").exists() == (sensor == "nuScenes")


def test_the_blocks_in_their_order(data):
    """Only the training has less to do than on the page, and the split takes more of the scans."""
    commands = list(lines())
    assert [words[1] for words in commands] == [
        *["ingest", "density", "ingest", "ingest", "ingest", "ingest", "ingest", "ingest"],
        *["train", "split"],
    ]
    for words in commands:
        if words[1] == "train":
            words = [word.replace("configs/", f"{ROOT}/configs/") for word in words]
            words += ["num_worker=0", "epoch=1", "eval_epoch=1"]
        words = ["0.5" if word == "0.01" else word for word in words]
        assert cli.main(words[1:]) == 0, words
    assert len(list((data / "data/town/train").iterdir())) == 4
    assert (data / "exp/dos/mine/model/model_last.pth").is_file()


def test_the_maps(tmp_path):
    maps = [text for language, text in BLOCKS if language == "yaml"]
    (tmp_path / "map.yaml").write_text(maps[0])
    assert len(maps) == 1
    assert read_label_map(str(tmp_path / "map.yaml")) == {0: -1, 40: 0, 10: 1, 252: 1}


@pytest.mark.parametrize("number", [0, 1])
def test_the_options_fit_their_configs(number):
    """They change what is there, under the names that the configs have."""
    options = [text for language, text in BLOCKS if not language and text.startswith("--options")]
    assert len(options) == 2
    name = ["9-demo", "0-nuscenes"][number]
    (file,) = (ROOT / "configs/dos").glob(f"pretrain-dos-v1m1-{name}.py")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = shlex.split(options[number].replace("\\\n", " "))
    chosen = parser.parse_args(["--config-file", str(file), *words]).options
    plain, changed = load_config(str(file)), load_config(str(file), chosen)
    for key, value in chosen.items():
        for cfg in (plain, changed):
            found = cfg
            for part in key.split("."):
                found = found[int(part) if part.isdigit() else part]
            assert (found == value) == (cfg is changed), key


def test_no_block_is_left_out():
    run = sum(text.startswith(("dos-plugin", "--options")) for kind, text in BLOCKS if not kind)
    assert run + sum(kind == "yaml" for kind, _ in BLOCKS) == len(BLOCKS)
