"""Scans to turn around in a browser: one HTML file that needs no network.

The page draws with WebGL and a script of its own, ``viewer.js``; ``benchmarks/viewers.py`` compares
it with libraries. Points and features travel in it quantised, compressed and as text.
Letters: N points, V voxels (rows of features), C channels, K kept channels.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dos_plugin.drawing.render import (
    FALLBACK_PALETTE,
    UNLABELLED,
    Palette,
    component_values,
    index_colours,
    label_colours,
    value_colours,
)
from dos_plugin.whole_file import write_whole

# Points of a scan that the page draws fluently, and that keep it to some megabytes.
MOST_POINTS = 150_000

# Directions of the feature space that are kept. Of 416 channels of a trained PTv3 they hold 97 % of
# the squared length; cosines are then off by 0.008 in the mean, by 0.05 in one case of a thousand.
KEPT_CHANNELS = 64

# Rows of all scans together from which these directions are computed.
BASIS_ROWS = 50_000

# Share of the points that the colours of a number are spread over; the rest is beyond their ends.
SPREAD = (1.0, 99.0)


@dataclass(frozen=True)
class View:
    """A scan for the page. What is None is not offered as a colour.

    Attributes:
        name: what the page calls it.
        coord: (N, 3) metres, z up.
        segment: (N,) class, -1 without label.
        strength: (N,) as stored.
        color: (N, 3) uint8.
        features: (V, C) features.
        inverse: (N,) row of ``features`` of every point; None where they are one a point.
        prototype: (V,) number of the strongest prototype.
    """

    name: str
    coord: np.ndarray
    segment: np.ndarray | None = None
    strength: np.ndarray | None = None
    color: np.ndarray | None = None
    features: np.ndarray | None = None
    inverse: np.ndarray | None = None
    prototype: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.coord)
        if not count or self.coord.shape != (count, 3):
            raise ValueError(f"{self.name}: coord of shape {self.coord.shape}, expected (N, 3)")
        if not np.isfinite(self.coord).all():
            raise ValueError(f"{self.name}: coord has NaN or infinite values")
        sizes = {"segment": count, "strength": count, "color": count, "inverse": count}
        if self.inverse is None:
            sizes["features"] = count
        if self.features is not None:
            sizes["prototype"] = len(self.features)
        for key, wanted in sizes.items():
            value = getattr(self, key)
            if value is not None and len(value) != wanted:
                raise ValueError(f"{self.name}: {key} of {len(value)} rows, expected {wanted}")

    @property
    def rows(self) -> np.ndarray:
        """(N,) row of ``features`` of every point."""
        return np.arange(len(self.coord)) if self.inverse is None else self.inverse


def write_view(
    path: Path,
    views: Sequence[View],
    class_names: Sequence[str] = (),
    palette: Palette = FALLBACK_PALETTE,
    title: str = "dos-plugin view",
    most_points: int = MOST_POINTS,
) -> int:
    """Write the page.

    Args:
        path: the HTML file; its folder must exist.
        views: scans; the page shows two of them side by side, any of them by choice.
        class_names: names of the classes; the others are called by their number.
        palette: their colours.
        title: of the page.
        most_points: larger scans are thinned to that many points, drawn evenly at random.

    Returns:
        Size of the file, bytes.

    Raises:
        ValueError: without scans, or for scans of which only some have features.
    """
    if not views:
        raise ValueError("views: got none, expected at least one scan")
    for key in ("features", "prototype"):
        if len({getattr(view, key) is None for view in views}) > 1:
            raise ValueError(f"views: {key} of some scans only, expected it of all or of none")
    totals = [len(view.coord) for view in views]
    views = [_thinned(view, most_points) for view in views]
    header, blobs = _content(views, class_names, palette)
    header |= {"title": title}
    for facts, total in zip(header["scans"], totals):
        facts["total"] = total
    page = _page(header, blobs)
    write_whole(path, lambda file: file.write_text(page, encoding="utf-8"))
    return path.stat().st_size


def kept_features(
    features: Sequence[np.ndarray], count: int = KEPT_CHANNELS
) -> tuple[list[np.ndarray], float]:
    """Features small enough for a page, that keep the cosines between all rows.

    The rows are scaled to unit length and projected to the directions that hold most of it, the
    same for all scans. Every row is then stretched to the range of int8, which no cosine sees.

    Args:
        features: (V, C) features of each scan.
        count: K, directions to keep at most.

    Returns:
        (V, K) int8 of each scan, and the mean share of the squared length that is kept.

    Raises:
        ValueError: if there are NaN or infinite values.
    """
    unit = [_unit(rows) for rows in features]
    step = max(1, sum(map(len, unit)) // BASIS_ROWS)
    sample = np.concatenate([rows[::step] for rows in unit])
    if not np.isfinite(sample).all():
        raise ValueError("features: there are NaN or infinite values")
    _, vectors = np.linalg.eigh(sample.T.astype(np.float64) @ sample)
    basis = vectors[:, ::-1][:, :count].astype(np.float32)
    kept = float(np.square(sample @ basis).sum(axis=1).mean())
    return [_bytes(rows @ basis) for rows in unit], kept


def quantised(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers as uint16 over the range of their column: the value is ``low + step * number``.

    Args:
        values: (N, D) finite numbers.

    Returns:
        (N, D) uint16, (D,) low and (D,) step.
    """
    low, high = values.min(axis=0).astype(np.float64), values.max(axis=0).astype(np.float64)
    step = (high - low) / 65535
    number = np.round((values - low) / np.where(step > 0, step, 1.0))
    return number.astype(np.uint16), low, step


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _bytes(rows: np.ndarray) -> np.ndarray:
    largest = np.abs(rows).max(axis=1, keepdims=True)
    return np.round(127 * rows / np.maximum(largest, 1e-12)).astype(np.int8)


def _thinned(view: View, most: int) -> View:
    """The view with at most so many points, and only the rows of features that they use."""
    if len(view.coord) <= most:
        return view
    keep = np.sort(np.random.default_rng(0).permutation(len(view.coord))[:most])
    used, inverse = np.unique(view.rows[keep], return_inverse=True)
    points = ("coord", "segment", "strength", "color")
    found: dict[str, Any] = {key: getattr(view, key) for key in (*points, "features", "prototype")}
    chosen = {
        key: value[keep if key in points else used]
        for key, value in found.items()
        if value is not None
    }
    return replace(view, **chosen, inverse=inverse.reshape(-1))


def _content(
    views: Sequence[View], class_names: Sequence[str], palette: Palette
) -> tuple[dict[str, Any], list[bytes]]:
    """What the script is told, and a blob of arrays for each scan."""
    parts = [_Part(view) for view in views]
    modes = []
    if any(view.segment is not None for view in views):
        modes.append(_labels(parts, class_names, palette))
    if any(view.color is not None for view in views):
        modes.append(_colors(parts))
    if any(view.strength is not None for view in views):
        modes.append(_strengths(parts))
    height = np.concatenate([view.coord[:, 2] for view in views])
    modes.append(_ramp("height", "Height", "Height of the points", height, " m"))
    header: dict[str, Any] = {"modes": modes, "ramps": _ramps()}
    if views[0].features is not None:
        modes.append(_components(parts))
        header["features"] = _kept(parts)
    if views[0].prototype is not None:
        modes.append(_prototypes(parts))
    blobs = [part.packed() for part in parts]
    header["scans"] = [part.facts for part in parts]
    return header, blobs


class _Part:
    """What the page gets of a scan: facts, and arrays by name."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.arrays: dict[str, np.ndarray] = {}
        self.facts: dict[str, Any] = {"name": view.name, "count": len(view.coord)}
        self.add_quantised("coord", view.coord)
        if view.features is not None and view.inverse is not None:
            self.arrays["inverse"] = view.inverse.astype(np.uint32)

    def add_quantised(self, key: str, values: np.ndarray) -> None:
        self.arrays[key], low, step = quantised(values)
        self.facts[key] = {"low": low.tolist(), "step": step.tolist()}

    def packed(self) -> bytes:
        """The arrays one after the other; where each begins is noted in the facts."""
        places, parts, offset = {}, [], 0
        for key, array in self.arrays.items():
            place = {"dtype": array.dtype.name, "offset": offset, "shape": list(array.shape)}
            places[key] = place
            data = array.astype(array.dtype.newbyteorder("<")).tobytes()
            parts.append(data + bytes(-len(data) % 4))  # typed arrays begin at multiples of 4
            offset += len(parts[-1])
        self.facts["arrays"] = places
        return b"".join(parts)


def _labels(parts: Sequence[_Part], class_names: Sequence[str], palette: Palette) -> dict[str, Any]:
    labels = [
        np.full(len(part.view.coord), -1)
        if part.view.segment is None
        else np.maximum(part.view.segment, -1)
        for part in parts
    ]
    kinds = np.unique(np.concatenate(labels))
    for part, label in zip(parts, labels):
        part.arrays["label"] = np.searchsorted(kinds, label).astype(np.uint16)
    names = [
        "unlabelled" if k < 0 else class_names[k] if k < len(class_names) else f"class {k}"
        for k in kinds.tolist()
    ]
    colours = label_colours(kinds, palette).tolist()
    hint = "Class of each point"
    return _mode("label", "Label", "classes", hint, names=names, colours=colours)


def _colors(parts: Sequence[_Part]) -> dict[str, Any]:
    for part in parts:
        color = part.view.color
        grey = np.tile(np.array(UNLABELLED, np.uint8), (len(part.view.coord), 1))
        part.arrays["color"] = grey if color is None else color.astype(np.uint8)
    return _mode("color", "Colour", "rgb", "Colours of the scan")


def _strengths(parts: Sequence[_Part]) -> dict[str, Any]:
    found = []
    for part in parts:
        strength = part.view.strength
        values = np.zeros(len(part.view.coord)) if strength is None else np.ravel(strength)
        part.add_quantised("strength", values[:, None])
        found.append(values)
    hint = "Strength of the returns"
    return _ramp("strength", "Strength", hint, np.concatenate(found), "")


def _components(parts: Sequence[_Part]) -> dict[str, Any]:
    features = [np.asarray(part.view.features) for part in parts]
    colours = value_colours(component_values(np.concatenate(features)))
    ends = np.cumsum([len(rows) for rows in features])[:-1]
    for part, own in zip(parts, np.split(colours, ends)):
        part.arrays["components"] = own
    hint = (
        "First three principal components of the features as red, green and blue: what the "
        "network takes for alike has one colour"
    )
    return _mode("components", "Components", "rgb", hint, rows=True)


def _kept(parts: Sequence[_Part]) -> dict[str, Any]:
    features = [np.asarray(part.view.features) for part in parts]
    small, share = kept_features(features)
    for part, rows in zip(parts, small):
        part.arrays["features"] = rows
    return {"channels": features[0].shape[1], "kept": small[0].shape[1], "share": share}


def _prototypes(parts: Sequence[_Part]) -> dict[str, Any]:
    found = [np.asarray(part.view.prototype) for part in parts]
    kinds = np.unique(np.concatenate(found))
    for part, index in zip(parts, found):
        part.arrays["prototype"] = np.searchsorted(kinds, index).astype(np.uint16)
    names, colours = [f"prototype {k}" for k in kinds.tolist()], index_colours(kinds).tolist()
    hint = "Prototype with the largest share of each point"
    return _mode("prototype", "Prototype", "classes", hint, names=names, colours=colours, rows=True)


def _ramp(key: str, title: str, hint: str, values: np.ndarray, unit: str) -> dict[str, Any]:
    low, high = np.percentile(values, SPREAD).tolist()
    return _mode(key, title, "ramp", hint, low=low, high=high, unit=unit)


def _mode(key: str, title: str, kind: str, hint: str, **more: Any) -> dict[str, Any]:
    """A way to colour, as the script wants it; ``rows``: one value a row of features."""
    return {"key": key, "title": title, "kind": kind, "hint": hint, **more}


def _ramps() -> dict[str, str]:
    """Colour maps of 256 colours, base64 of RGB."""
    from matplotlib import colormaps

    ramps = {"strength": "viridis", "height": "turbo", "similarity": "inferno"}
    # The dark end of the last one would be lost on the background.
    ends = {"similarity": (0.18, 1.0)}
    found = {}
    for key, name in ramps.items():
        table = colormaps[name](np.linspace(*ends.get(key, (0.0, 1.0)), 256))[:, :3]
        found[key] = base64.b64encode((255 * table).round().astype(np.uint8).tobytes()).decode()
    return found


def _page(header: Mapping[str, Any], blobs: Sequence[bytes]) -> str:
    """The template with what belongs into it; nothing in a name can end its element."""
    folder = Path(__file__).parent
    data = [
        f'<script type="application/octet-stream" id="scan-{index}">'
        f"{base64.b64encode(gzip.compress(blob, 6, mtime=0)).decode()}</script>"
        for index, blob in enumerate(blobs)
    ]
    text = json.dumps(header).replace("<", "\\u003c")
    parts = {
        "TITLE": html.escape(str(header["title"])),
        "HEADER": f'<script type="application/json" id="header">{text}</script>',
        "SCANS": "\n".join(data),
        "SCRIPT": f"<script>\n{(folder / 'viewer.js').read_text('utf-8')}</script>",
    }
    page = (folder / "viewer.html").read_text("utf-8")
    for key in parts:
        before, found, after = page.partition(f"<!-- {key} -->")
        assert found, key
        page = before + parts[key] + after
    return page
