"""Named columns, what every reader gives."""

from collections.abc import Sequence

import numpy as np

Fields = dict[str, np.ndarray]  # name -> (N,); columns without a name have their number as name


def find(fields: Fields, name: str) -> str | None:
    """The column of a name, also with capitals, or the prefix of CloudCompare or A2D2; or None."""
    if name in fields:
        return name
    return next((field for field in fields if _plain(field) == _plain(name)), None)


def pick(fields: Fields, name: str) -> np.ndarray:
    """The values (N,) of a column.

    Raises:
        ValueError: there is no such column.
    """
    found = find(fields, name)
    if found is None:
        raise ValueError(f"no field {name!r}; there are {', '.join(fields)}")
    return fields[found]


def _plain(name: str) -> str:
    return name.lower().removeprefix("scalar_").removeprefix("pcloud_attr.")


def columns_of(rows: np.ndarray) -> Fields:
    """The plain fields of a structured array; lists and vectors are left out."""
    names = rows.dtype.names or ()
    return {name: rows[name] for name in names if rows.dtype[name].kind in "fiu"}


def packed_columns(
    data: bytes | memoryview, layout: Sequence[tuple[str, str, int]], step: int, count: int
) -> Fields:
    """Columns of points that lie one after the other.

    Args:
        data: bytes, ``count * step`` or more.
        layout: name, numpy type and place in the point (bytes) of the fields that are wanted.
        step: bytes of a point.
        count: number of points.
    """
    names, formats, offsets = (list(part) for part in zip(*layout)) if layout else ([], [], [])
    dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": step})
    return columns_of(np.frombuffer(data, dtype, count))
