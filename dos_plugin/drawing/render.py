"""Pictures of a scan: bird's-eye and perspective, coloured point by point.

A small z-buffer renderer in numpy: every point is a disc, the nearest one wins, and edges in
depth are darkened (eye-dome lighting), which lets shapes stand out without any surface.
Letters: N points, (H, W) pixels.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Palette = tuple[tuple[int, int, int], ...]

# Scans are drawn on near-black, where thin and far things stay visible.
BACKGROUND = (13, 16, 23)
UNLABELLED = (86, 90, 100)

# Colours for data sets without a palette of their own.
FALLBACK_PALETTE: Palette = tuple(
    (round(255 * red), round(255 * green), round(255 * blue))
    for red, green, blue in (
        colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.75 - i % 2 / 4, 0.95) for i in range(64)
    )
)


# How far the cameras move forward where nothing lies behind the sensor, metres.
FRONT_SHIFT = 11.0

# What is nearer to the camera is not drawn, metres.
NEAR = 0.5


@dataclass(frozen=True)
class Camera:
    """Where a picture is taken from.

    Attributes:
        position: metres, in the scan's coordinates (x forward, z up).
        target: point in the middle of the picture, metres.
        field_of_view: horizontal, degrees; 0 is a parallel projection of ``span`` metres.
        span: width of the picture of a parallel projection, metres.
        point_size: diameter of a point, metres.
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    field_of_view: float = 0.0
    span: float = 0.0
    point_size: float = 0.16


def birds_eye(span: float = 64.0, ahead: float = 0.0) -> Camera:
    """From above, x to the right.

    Args:
        span: width of the picture, metres.
        ahead: how far in front of the sensor the middle of the picture lies, metres.
    """
    return Camera((ahead, 0.0, 100.0), (ahead, 0.0, 0.0), span=span, point_size=span / 250)


def perspective(ground: float = -1.8, ahead: float = 0.0) -> Camera:
    """From behind and above the sensor, looking forward.

    Args:
        ground: height of the ground in the scan's coordinates, metres.
        ahead: how far the camera is moved forward, metres.
    """
    position, target = (-24.0 + ahead, -10.0, ground + 15.0), (6.0 + ahead, 1.0, ground)
    return Camera(position, target, 55.0, point_size=0.2)


def cameras(coord: np.ndarray) -> tuple[Camera, Camera]:
    """Bird's-eye view and perspective that suit a scan: of a LiDAR sensor, or of a room.

    Args:
        coord: (N, 3) metres; of a LiDAR scan with the sensor at x = y = 0.
    """
    low, high = np.percentile(coord, [1, 99], axis=0)
    ground = float(np.percentile(coord[:, 2], 10))
    if max(high[:2] - low[:2]) > 25:
        # Scans cut to a camera's view (KITTI's, often) have all points in front of the sensor.
        ahead = FRONT_SHIFT if (coord[:, 0] > 0).mean() > 0.95 else 0.0
        return birds_eye(ahead=ahead), perspective(ground, ahead)
    x, y, _ = (float(value) for value in (low + high) / 2)
    size = max(2.0, *(float(value) for value in (high - low)[:2]))
    above = Camera((x, y, 100.0), (x, y, 0.0), span=1.1 * size, point_size=size / 200)
    position = (x - 0.75 * size, y - 0.75 * size, ground + 0.8 * size)
    return above, Camera(position, (x, y, ground), 50.0, point_size=size / 170)


def render(
    coord: np.ndarray, colour: np.ndarray, camera: Camera, width: int = 960, height: int = 600
) -> np.ndarray:
    """Draw points on a dark ground.

    Args:
        coord: (N, 3) metres.
        colour: (N, 3) uint8.
        camera: where from.
        width: W, pixels.
        height: H, pixels.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: if coordinates and colours differ in number.
    """
    if len(coord) != len(colour):
        raise ValueError(f"colour: got {len(colour)} for {len(coord)} points, expected one each")
    scale = 2  # drawn twice as large and averaged, against jagged edges
    depth, index = _depth_buffer(coord, camera, width * scale, height * scale)
    hit = index >= 0
    image = np.tile(np.array(BACKGROUND, dtype=np.float64), (*depth.shape, 1))
    image[hit] = colour[index[hit]]
    image[hit] *= _eye_dome_light(depth, hit)[hit][:, None]
    image = image.reshape(height, scale, width, scale, 3).mean(axis=(1, 3))
    return image.round().astype(np.uint8)


def label_colours(segment: np.ndarray, palette: Palette = FALLBACK_PALETTE) -> np.ndarray:
    """(N, 3) uint8 colours of classes; grey without label."""
    table = np.array([*(palette[k % len(palette)] for k in range(256)), UNLABELLED], dtype=np.uint8)
    return table[np.where(segment >= 0, segment % 256, 256)]


def component_colours(feat: np.ndarray, components: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(N, 3) uint8: three projections of the features, each stretched over its 1 to 99 % range."""
    return value_colours((feat - mean) @ components.T)


def value_colours(values: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """(N, 3) uint8 of (N, 3) numbers, each column stretched over its 1 to 99 % range.

    The range is that of a reference (M, 3) if there is one.
    """
    low, high = np.percentile(values if reference is None else reference, [1, 99], axis=0)
    values = np.clip((values - low) / np.maximum(high - low, 1e-9), 0, 1)
    # The darkest colour stays clear of the background.
    return (50 + 205 * values).round().astype(np.uint8)


@dataclass(frozen=True)
class Basis:
    """Principal components of standardised features, scaled to the same variance.

    Attributes:
        directions: (C, 3).
        mean: (C,).
    """

    directions: np.ndarray
    mean: np.ndarray

    def values(self, feat: np.ndarray) -> np.ndarray:
        """(N, 3) float32 values of features (N, C)."""
        return ((feat - self.mean) @ self.directions).astype(np.float32)


def component_basis(feat: np.ndarray, rows: int = 20_000) -> Basis:
    """First three principal components of features (N, C), with variance 1.

    They are computed from so many rows, evenly spread. Of fewer than three channels or rows the
    missing components are 0.
    """
    pick = feat[np.linspace(0, len(feat) - 1, min(rows, len(feat))).astype(np.int64)]
    # Standardised, or the few channels with large numbers would be all that one sees.
    deviation = pick.std(axis=0)
    scale = np.where(deviation > 1e-6, deviation, np.inf)  # a channel that is constant says nothing
    components, _ = principal_components(pick / scale)
    directions = np.zeros((feat.shape[1], 3))
    directions[:, : len(components)] = (components / scale).T
    mean = pick.mean(axis=0)
    directions /= np.maximum(((pick - mean) @ directions).std(axis=0), 1e-6)
    return Basis(directions.astype(np.float32), mean)


def component_values(
    feat: np.ndarray, reference: np.ndarray | None = None, rows: int = 20_000
) -> np.ndarray:
    """First three principal components of points, turned to look as in an earlier picture.

    Components have no sign, and their order changes as a network learns. The three that are found,
    scaled to the same variance, are turned (and mirrored) as a whole to where each point is
    nearest to its earlier values: the orthogonal Procrustes problem.

    Args:
        feat: (N, C) features.
        reference: (N, 3) earlier values of the same points; None leaves the components as they are.
        rows: the components are computed from so many points, evenly spread.

    Returns:
        (N, 3) float32 of mean 0 and variance 1 over those points.

    Raises:
        ValueError: if the reference is not of the same points.
    """
    if reference is not None and reference.shape != (len(feat), 3):
        raise ValueError(f"reference: got {reference.shape}, expected {(len(feat), 3)}")
    values = component_basis(feat, rows).values(feat)
    if reference is not None:
        left, _, right = np.linalg.svd(values.T.astype(np.float64) @ reference)
        values = values @ (left @ right)
    return values.astype(np.float32)


def principal_components(feat: np.ndarray, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """First principal components of (N, C) features: (count, C) directions and the (C,) mean.

    The sign of each direction is fixed (largest entry positive), so that the same features give
    the same colours.
    """
    mean = feat.mean(axis=0)
    centred = (feat - mean).astype(np.float64)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    components = vectors[:, ::-1][:, :count].T
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
    return (components * np.sign(largest)).astype(np.float32), mean


def index_colours(index: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 colours of arbitrary numbers: neighbouring numbers get far apart hues."""
    kinds, place = np.unique(index, return_inverse=True)
    hue, value = (kinds * 0.6180339887) % 1, 0.65 + 0.35 * ((kinds * 0.7548776662) % 1)
    table = np.array([colorsys.hsv_to_rgb(h, 0.7, v) for h, v in zip(hue, value)])
    return (255 * table).round().astype(np.uint8).reshape(-1, 3)[place.ravel()]


def save_png(image: np.ndarray, path: str | Path) -> None:
    """Write an (H, W, 3) uint8 image."""
    from PIL import Image

    Image.fromarray(image).save(path)


def project(
    coord: np.ndarray, camera: Camera, width: int, height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel column and row (N,), and distance along the line of sight (N,), metres.

    The first pixel reaches from 0 to 1. Columns and rows are NaN where a point is nearer than
    ``NEAR`` in a perspective.
    """
    forward = np.subtract(camera.target, camera.position).astype(np.float64)
    forward /= np.linalg.norm(forward)
    # Looking straight down, "up" in the picture is y; else it is z.
    up = np.array([0.0, 1.0, 0.0]) if abs(forward[2]) > 0.999 else np.array([0.0, 0.0, 1.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(right, forward), forward])
    x, y, depth = axes @ (coord - np.array(camera.position)).T
    focal = _focal(camera, width)
    if camera.field_of_view:
        near = np.where(depth > NEAR, depth, np.nan)
        x, y = x / near, y / near
    return width / 2 + focal * x, height / 2 - focal * y, depth


def _focal(camera: Camera, width: int) -> float:
    """Pixels per metre at distance 1 (perspective) or everywhere (parallel)."""
    if camera.field_of_view:
        return width / 2 / np.tan(np.radians(camera.field_of_view) / 2)
    return width / camera.span


def _depth_buffer(
    coord: np.ndarray, camera: Camera, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distance (H, W) and row of the nearest point (H, W), -1 where there is none."""
    column, row, depth = project(np.asarray(coord, dtype=np.float64), camera, width, height)
    pixels = _focal(camera, width) * camera.point_size
    size = pixels / depth if camera.field_of_view else np.full(len(coord), pixels)
    with np.errstate(invalid="ignore"):
        inside = (depth > NEAR) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    # From far to near: where several points fall on a pixel, the last assignment stays.
    order = np.argsort(-depth[inside], kind="stable")
    kept = np.nonzero(inside)[0][order]
    column, row = column[kept].astype(np.int64), row[kept].astype(np.int64)
    squared = np.clip(np.nan_to_num(size[kept]) / 2, 0.5, 6.0) ** 2
    front = np.full(width * height, -1)  # place in the order of the point that a pixel shows
    reach = int(np.sqrt(squared.max())) if len(kept) else 0
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            rank = np.nonzero(squared >= dx * dx + dy * dy)[0]
            x, y = column[rank] + dx, row[rank] + dy
            rank = rank[ok := (x >= 0) & (x < width) & (y >= 0) & (y < height)]
            pixel = y[ok] * width + x[ok]
            front[pixel] = np.maximum(front[pixel], rank)
    hit = front >= 0
    far, index = np.full(width * height, np.inf), np.full(width * height, -1)
    index[hit] = kept[front[hit]]
    far[hit] = depth[index[hit]]
    return far.reshape(height, width), index.reshape(height, width)


def _eye_dome_light(depth: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Brightness (H, W), 1 on even ground and lower beside something nearer."""
    log_depth = np.where(hit, np.log2(np.where(hit, depth, 1.0)), np.inf)
    shade = np.zeros(depth.shape)
    for shift in (-2, 2):
        for axis in (0, 1):
            drop = np.where(hit, log_depth, 0) - np.roll(log_depth, shift, axis)
            shade += np.clip(np.where(np.isfinite(drop), drop, 0), 0, 0.1)
    return np.exp(-4.0 * shade)
