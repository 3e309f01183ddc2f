"""PCD files of all versions, and as ROS tools write them.

The format: https://pointclouds.org/documentation/tutorials/pcd_file_format.html. Where a line of
the header is missing, PCL's default holds.
"""

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .fields import Fields, packed_columns

LONGEST_HEADER = 1 << 16  # bytes
ENCODINGS = ("ascii", "binary", "binary_compressed")


@dataclass(frozen=True)
class Field:
    """A field of the header.

    Attributes:
        name: ``_`` is padding.
        dtype: of one value; None: none of the types of the format.
        size: bytes of one value.
        count: values of a point, 0 or more.
        offset, column: bytes and values of a point before it.
    """

    name: str
    dtype: str | None
    size: int
    count: int
    offset: int
    column: int


@dataclass(frozen=True)
class Header:
    """What the header says."""

    fields: tuple[Field, ...]
    points: int
    encoding: str

    @property
    def step(self) -> int:
        """Bytes of a point."""
        return sum(field.size * field.count for field in self.fields)

    @property
    def width(self) -> int:
        """Values of a point."""
        return sum(field.count for field in self.fields)

    def used(self) -> list[Field]:
        """Fields of one number, each name once."""
        found: dict[str, Field] = {}
        for field in self.fields:
            if field.name != "_" and field.dtype is not None and field.count == 1:
                found.setdefault(field.name, field)
        return list(found.values())


def read_pcd(file: Path) -> Fields:
    """Columns of a ``.pcd`` file, ascii, binary or binary_compressed.

    Raises:
        OSError: it cannot be read.
        ValueError: it is broken.
    """
    with file.open("rb") as stream:
        header = read_header(stream)
        data = stream.read()
    if header.encoding == "ascii":
        return _ascii(header, data)
    if header.encoding == "binary":
        _check_length(header, len(data) // max(header.step, 1))
        layout = [(f.name, f.dtype or "", f.offset) for f in header.used()]
        return packed_columns(data, layout, header.step, header.points)
    data = _decompress(data)
    _check_length(header, len(data) // max(header.step, 1))
    return {  # one field after the other
        f.name: np.frombuffer(data, f.dtype, header.points, f.offset * header.points)
        for f in header.used()
    }


def read_header(stream: BinaryIO) -> Header:
    """The header, up to and with the line DATA.

    Raises:
        ValueError: a line is missing or wrong.
    """
    lines: dict[str, list[str]] = {}
    while "DATA" not in lines:
        line = stream.readline(LONGEST_HEADER)
        if not line or stream.tell() > LONGEST_HEADER:
            raise ValueError("no line DATA at the end of a header")
        words = line.split(b"#", 1)[0].decode("latin-1").split()
        if words:
            lines[words[0].upper()] = words[1:]
    names = lines.get("FIELDS") or lines.get("COLUMNS") or []
    if not names:
        raise ValueError("a header without the line FIELDS")
    sizes = _numbers(lines, "SIZE", [4] * len(names))
    counts = _numbers(lines, "COUNT", [1] * len(names))
    types = [word.upper() for word in lines.get("TYPE", ["F"] * len(names))]
    for key, values in (("SIZE", sizes), ("TYPE", types), ("COUNT", counts)):
        if len(values) != len(names):
            raise ValueError(f"{len(names)} names in FIELDS, but {len(values)} values in {key}")
    fields, offset, column = [], 0, 0
    for name, size, kind, count in zip(names, sizes, types, counts):
        known = (size in (1, 2, 4, 8) and kind in "IU") or (size in (4, 8) and kind == "F")
        dtype = f"<{kind.lower()}{size}" if known else None
        fields.append(Field(name, dtype, size, count, offset, column))
        offset, column = offset + size * count, column + count
    (width,), (height,) = (_numbers(lines, key, [1]) for key in ("WIDTH", "HEIGHT"))
    (points,) = _numbers(lines, "POINTS", [width * height])
    if "POINTS" not in lines and "WIDTH" not in lines:
        raise ValueError("a header without the lines WIDTH and POINTS")
    encoding = " ".join(lines["DATA"]).lower()
    if encoding not in ENCODINGS:
        raise ValueError(f"DATA {encoding!r}, expected one of {', '.join(ENCODINGS)}")
    return Header(tuple(fields), points, encoding)


def _numbers(lines: dict[str, list[str]], key: str, default: list[int]) -> list[int]:
    words = lines.get(key, [str(value) for value in default])
    if not words or not all(word.isdigit() for word in words):
        raise ValueError(f"{key} {' '.join(words)!r}, expected whole numbers")
    return [int(word) for word in words]


def _check_length(header: Header, found: int) -> None:
    if found < header.points:
        raise ValueError(f"cut off: {found:,} of {header.points:,} points")


def _ascii(header: Header, data: bytes) -> Fields:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # of numpy 1, in place of an error
            values = np.fromstring(data.decode("latin-1"), np.float64, sep=" ")
    except (ValueError, DeprecationWarning) as error:
        raise ValueError("values that are no numbers among the points") from error
    wanted = header.points * header.width
    if len(values) < wanted:
        good = len(values) // max(header.width, 1)
        raise ValueError(f"cut off: {good:,} of {header.points:,} points")
    if len(values) > wanted:
        raise ValueError(
            f"{len(values):,} numbers, expected {header.points:,} points of {header.width}"
        )
    rows = values.reshape(header.points, header.width)
    return {f.name: _convert(rows[:, f.column], f.dtype or "") for f in header.used()}


def _convert(values: np.ndarray, dtype: str) -> np.ndarray:
    # a missing return may have nan in a field of whole numbers
    whole = np.dtype(dtype).kind in "iu" and not np.isfinite(values).all()
    return values if whole else values.astype(dtype)


def _decompress(data: bytes) -> bytes:
    import lzf

    if len(data) < 8:
        raise ValueError("cut off: no compressed points")
    packed, size = struct.unpack_from("<II", data)
    if len(data) < 8 + packed:
        raise ValueError(f"cut off: {len(data) - 8:,} of {packed:,} compressed bytes")
    unpacked = lzf.decompress(data[8 : 8 + packed], size) if size else b""
    if unpacked is None or len(unpacked) != size:
        raise ValueError("compressed points that cannot be unpacked")
    return bytes(unpacked)
