"""Recordings of ROS: ROS 1 ``.bag``, ROS 2 folders, ``.mcap`` and ``.db3`` files.

A message a scan: sensor_msgs/PointCloud2, or Livox' CustomMsg.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .fields import Fields, packed_columns

CLOUDS = ("sensor_msgs/msg/PointCloud2",)
LIVOX = ("livox_ros_driver/msg/CustomMsg", "livox_ros_driver2/msg/CustomMsg")
LIVOX_FIELDS = ("x", "y", "z", "reflectivity", "tag", "line")
TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")  # PointField's datatypes 1 to 8


def read_recording(
    file: Path, topic: str | None = None, every: int = 1
) -> Iterator[tuple[str, Fields]]:
    """Scans of a recording in the order of their messages: stamp (ns) as a name, and columns.

    A second message with the same stamp is the same scan once more and is left out.

    Args:
        file: the recording; a folder for ROS 2.
        topic: of the scans; None: the only one that there is.
        every: take every n-th scan.

    Raises:
        OSError: it cannot be read.
        ValueError: there is no such topic, or several could be meant.
    """
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    with AnyReader([file], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        chosen = _choose(reader.connections, topic)
        seen: set[int] = set()
        for connection, logged, raw in reader.messages(chosen):
            message: Any = reader.deserialize(raw, connection.msgtype)
            stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec or logged
            if stamp not in seen and len(seen) % every == 0:
                is_cloud = connection.msgtype in CLOUDS
                yield str(stamp), (_cloud if is_cloud else _livox)(message)
            seen.add(stamp)


def _choose(connections: list[Any], topic: str | None) -> list[Any]:
    """Connections of one topic with scans."""
    clouds = [c for c in connections if c.msgtype in (*CLOUDS, *LIVOX)]
    counts: dict[str, int] = {}
    for connection in clouds:
        counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
    listed = ", ".join(f"{name} ({count:,})" for name, count in sorted(counts.items()))
    if not counts:
        raise ValueError(
            f"no scans: none of its {len(connections)} topics is of sensor_msgs/PointCloud2; raw "
            "packets of a sensor must be turned into these by its driver"
        )
    if topic is None and len(counts) > 1:
        raise ValueError(f"several topics with scans, choose one with --topic: {listed}")
    chosen = [c for c in clouds if topic is None or c.topic.strip("/") == topic.strip("/")]
    if not chosen:
        raise ValueError(f"--topic: {topic!r} has no scans; there are {listed}")
    return chosen


def _cloud(message: Any) -> Fields:
    """Columns of a PointCloud2, organised or not, of either byte order."""
    order = ">" if message.is_bigendian else "<"
    layout: dict[str, tuple[str, str, int]] = {}
    for field in message.fields:
        if 1 <= field.datatype <= len(TYPES) and field.count <= 1:
            layout.setdefault(
                field.name, (field.name, order + TYPES[field.datatype - 1], field.offset)
            )
    step, width, height = message.point_step, message.width, message.height
    data = np.ascontiguousarray(message.data).data.cast("B")
    wanted = message.row_step * (height - 1) + step * width if width and height else 0
    if len(data) < wanted:
        raise ValueError(f"a message cut off: {len(data):,} of {wanted:,} bytes")
    fields = list(layout.values())
    if height <= 1 or message.row_step == step * width:
        return packed_columns(data, fields, step, width * height)
    rows = [  # rows with bytes after them
        packed_columns(data[row * message.row_step :], fields, step, width) for row in range(height)
    ]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _livox(message: Any) -> Fields:
    return {
        name: np.array([getattr(point, name) for point in message.points], np.float32)
        for name in LIVOX_FIELDS
    }
