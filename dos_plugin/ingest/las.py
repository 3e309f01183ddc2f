"""Maps in ``.las`` and ``.laz`` files."""

from pathlib import Path

import numpy as np

from .fields import Fields
from .tiles import ground_level

CHUNK = 1_000_000  # points
COLORS = ("red", "green", "blue")


def read_las(file: Path) -> Fields:
    """Columns x, y, z (float64, metres), intensity, classification and colours, if there are any.

    Map coordinates are millions of metres. So x and y are told from the middle of the file, a
    whole number of metres, and z from the ground; the offsets are subtracted from those of the
    file before they are added to its whole numbers.

    Raises:
        OSError: it cannot be read.
        ValueError: it is broken.
    """
    import laspy

    with laspy.open(file) as reader:
        header = reader.header
        count = header.point_count
        present = set(header.point_format.dimension_names)
        names = [name for name in ("intensity", "classification", *COLORS) if name in present]
        origin = np.floor([*(header.mins + header.maxs)[:2] / 2, header.mins[2]])
        shift = header.offsets - origin
        fields: Fields = {axis: np.empty(count) for axis in "xyz"}
        start = 0
        for points in reader.chunk_iterator(CHUNK):
            stop = start + len(points)
            for axis, scale, offset in zip("xyz", header.scales, shift):
                fields[axis][start:stop] = points[axis.upper()] * scale + offset
            for name in names:
                values = np.asarray(points[name])
                fields.setdefault(name, np.empty(count, values.dtype))[start:stop] = values
            start = stop
    if start < count:
        raise ValueError(f"cut off: {start:,} of {count:,} points")
    if all(name in fields and not fields[name].any() for name in COLORS):
        fields = {name: values for name, values in fields.items() if name not in COLORS}
    if count:
        fields["z"] -= ground_level(fields)
    return fields
