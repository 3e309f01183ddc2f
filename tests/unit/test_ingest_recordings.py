"""Recordings written by the library's writers, read scan by scan."""

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from dos_plugin.ingest import readers, recordings
from dos_plugin.ingest.job import Job, Settings, read_job
from dos_plugin.ingest.readers import Reading, read_fields, read_scans
from tests.unit.test_ingest import call

START = 1_700_000_000_000_000_000  # ns
FIELDS = {"x": 7, "y": 7, "z": 7, "intensity": 7, "ring": 4, "stamp": 8}  # with their datatypes
OFFSETS = [0, 4, 8, 16, 20, 24]
LIVOX = """std_msgs/Header header
uint64 timebase
uint32 point_num
uint8 lidar_id
uint8[3] rsvd
livox_ros_driver/CustomPoint[] points
================================================================================
MSG: livox_ros_driver/CustomPoint
uint32 offset_time
float32 x
float32 y
float32 z
uint8 reflectivity
uint8 tag
uint8 line
"""


def rows(number, order="<", count=60):
    """Points of a scan as a structured array with gaps between its fields."""
    rng = np.random.default_rng(number)
    formats = [order + kind for kind in ("f4", "f4", "f4", "f4", "u2", "f8")]
    names = list(FIELDS)
    points = np.zeros(
        count, {"names": names, "formats": formats, "offsets": OFFSETS, "itemsize": 40}
    )
    for axis in "xyz":
        points[axis] = rng.uniform(-40, 40, count)
    points["intensity"] = rng.integers(0, 256, count)
    points["ring"], points["stamp"] = rng.integers(0, 64, count), np.nan
    return points


def header(types, stamp):
    time = types["builtin_interfaces/msg/Time"](stamp // 10**9, stamp % 10**9)
    first = {"seq": 0} if "seq" in types["std_msgs/msg/Header"].__dataclass_fields__ else {}
    return types["std_msgs/msg/Header"](**first, stamp=time, frame_id="lidar")


def cloud(store, stamp, number, big=False, height=1, gap=0, strength="intensity"):
    """A PointCloud2; ``gap`` bytes lie after each of its rows, ``strength`` is a name."""
    points = rows(number, ">" if big else "<")
    field = store.types["sensor_msgs/msg/PointField"]
    names = [strength if name == "intensity" else name for name in FIELDS]
    lines = points.reshape(height, -1)
    data = b"".join(line.tobytes() + bytes(gap) for line in lines)
    return store.types["sensor_msgs/msg/PointCloud2"](
        header=header(store.types, stamp),
        height=height,
        width=lines.shape[1],
        fields=[field(n, o, d, 1) for n, o, d in zip(names, OFFSETS, FIELDS.values())],
        is_bigendian=big,
        point_step=40,
        row_step=lines.shape[1] * 40 + gap,
        data=np.frombuffer(data, np.uint8),
        is_dense=True,
    )


def write_bag(path, stamps, topics=("/points",)):
    store = get_typestore(Stores.ROS1_NOETIC)
    with Writer1(path) as writer:
        for topic in topics:
            to = writer.add_connection(topic, "sensor_msgs/msg/PointCloud2", typestore=store)
            for number, stamp in enumerate(stamps):
                message = cloud(store, stamp, number, big=number % 2 == 1)
                raw = store.serialize_ros1(message, message.__msgtype__)
                writer.write(to, START + number, raw)
    return path


def write_ros2(path, stamps, plugin, topic="/points", **more):
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Writer2(path, version=9, storage_plugin=plugin) as writer:
        to = writer.add_connection(topic, "sensor_msgs/msg/PointCloud2", typestore=store)
        for number, stamp in enumerate(stamps):
            message = cloud(store, stamp, number, height=4, gap=24 * (number % 2), **more)
            raw = store.serialize_cdr(message, message.__msgtype__)
            writer.write(to, START + number, raw)
    return path


def stamps(count):
    return [START + number * 100_000_000 for number in range(count)]


def check(root, name, chosen):
    """The scene folders hold the scans of these numbers."""
    folders = {f"{name}-{START + number * 100_000_000}": number for number in chosen}
    assert sorted(path.name for path in (root / "train").iterdir()) == sorted(folders)
    for folder, number in folders.items():
        points = rows(number)
        coord = np.load(root / "train" / folder / "coord.npy")
        strength = np.load(root / "train" / folder / "strength.npy")
        np.testing.assert_array_equal(coord, np.stack([points[axis] for axis in "xyz"], 1))
        np.testing.assert_array_equal(strength[:, 0], points["intensity"] / np.float32(255))


def test_a_bag(tmp_path, capsys):
    """Of either byte order, with a scan that comes twice."""
    file = write_bag(tmp_path / "drive.bag", [*stamps(5), START])
    assert call(file, "--out", tmp_path / "out") == 0
    check(tmp_path / "out", "drive", range(5))
    assert "5 scans with 300 points" in capsys.readouterr().out
    assert call(file, "--every", "2", "--out", tmp_path / "few") == 0
    check(tmp_path / "few", "drive", (0, 2, 4))
    assert call(file, "--out", tmp_path / "out") == 0
    assert "5 were there already" in capsys.readouterr().out


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_a_folder_of_ros_2_and_the_file_in_it(tmp_path, plugin):
    """Organised, half of them with bytes after their rows."""
    folder = write_ros2(tmp_path / "in/day 1.2", stamps(4), plugin)
    assert call(tmp_path / "in", "--out", tmp_path / "out") == 0
    check(tmp_path / "out", "day_1.2", range(4))
    (file,) = [path for path in folder.iterdir() if path.suffix != ".yaml"]
    file = file.rename(tmp_path / f"drive{file.suffix}")
    assert call(file, "--out", tmp_path / "file") == 0
    check(tmp_path / "file", "drive", range(4))


def test_recordings_in_processes(tmp_path):
    files = [write_bag(tmp_path / f"{name}.bag", stamps(2)) for name in "ab"]
    assert call(*files, "--workers", "2", "--out", tmp_path / "out") == 0
    assert len(list((tmp_path / "out/train").iterdir())) == 4


def test_a_scan_without_a_point_does_not_spoil_the_others(tmp_path, monkeypatch, capsys):
    file = write_bag(tmp_path / "a.bag", stamps(3))
    whole = readers.read_recording

    def second_empty(*args):
        for number, (name, fields) in enumerate(whole(*args)):
            yield name, {k: v[: 0 if number == 1 else None] for k, v in fields.items()}

    monkeypatch.setattr(readers, "read_recording", second_empty)
    assert call(file, "--out", tmp_path / "out") == 2
    assert f"{file} [{stamps(2)[1]}]: no point" in capsys.readouterr().err
    check(tmp_path / "out", "a", (0, 2))


def test_topics(tmp_path, capsys):
    file = write_bag(tmp_path / "a.bag", stamps(2), ["/left/points", "/right/points"])
    assert call(file, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "choose one with --topic: /left/points (2), /right/points (2)" in error
    assert call(file, "--topic", "right/points", "--out", tmp_path / "out") == 0
    check(tmp_path / "out", "a", range(2))
    assert call(file, "--topic", "/up", "--out", tmp_path / "no") == 2
    assert "--topic: '/up' has no scans; there are /left/points (2)" in capsys.readouterr().err


def test_a_recording_without_scans(tmp_path, capsys):
    store = get_typestore(Stores.ROS1_NOETIC)
    with Writer1(tmp_path / "a.bag") as writer:
        to = writer.add_connection("/packets", "std_msgs/msg/String", typestore=store)
        message = store.types["std_msgs/msg/String"]("raw")
        writer.write(to, START, store.serialize_ros1(message, message.__msgtype__))
    (tmp_path / "b.bag").write_bytes(b"no bag")
    assert call(tmp_path / "a.bag", tmp_path / "b.bag", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "a.bag: cannot be read as ros: no scans: none of its 1 topics is of" in error
    assert "b.bag: cannot be read as ros: " in error


def test_scans_without_a_stamp_are_named_by_the_time_of_their_arrival(tmp_path):
    file = write_bag(tmp_path / "a.bag", [0, 0])
    assert [name for name, _ in read_scans(file, "ros")] == [str(START), str(START + 1)]


def test_messages_of_livox(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    store.register(get_types_from_msg(LIVOX, "livox_ros_driver/msg/CustomMsg"))
    point = store.types["livox_ros_driver/msg/CustomPoint"]
    custom = store.types["livox_ros_driver/msg/CustomMsg"]
    points = [point(n, n + 0.5, -n, 1.0, n + 9, 0, 1) for n in range(5)]
    message = custom(header(store.types, START), START, 5, 0, np.zeros(3, np.uint8), points)
    with Writer1(tmp_path / "a.bag") as writer:
        to = writer.add_connection("/livox/lidar", custom.__msgtype__, typestore=store)
        writer.write(to, START, store.serialize_ros1(message, custom.__msgtype__))
    fields = read_fields(tmp_path / "a.bag", "ros", Reading())
    assert fields["x"].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert fields["y"].tolist() == [0, -1, -2, -3, -4]
    assert fields["reflectivity"].tolist() == [9, 10, 11, 12, 13]


def test_scans_are_read_one_after_the_other(tmp_path, monkeypatch):
    """So that memory does not grow with the recording."""
    file = write_bag(tmp_path / "a.bag", stamps(6))
    read = []
    whole = recordings._cloud
    monkeypatch.setattr(recordings, "_cloud", lambda message: read.append(1) or whole(message))
    for number, _ in enumerate(read_scans(file, "ros"), 1):
        assert len(read) == number
    read.clear()
    for number, _ in enumerate(read_job(Settings(tmp_path), Job(file, "a")), 1):
        assert len(read) == number
    assert number == 6
