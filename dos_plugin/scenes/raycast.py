"""Ray casting: the first surface that each ray of a spinning sensor meets.

All rays start at one point and lie on a grid of beams and columns, so a solid can only be met by
the rays inside its window of elevations and azimuths. :func:`candidates` lists these ray and solid
pairs, the functions below intersect them all at once, and :func:`cast` keeps the nearest hit.
"""

from dataclasses import dataclass

import numpy as np

from .skins import apply_skin
from .solids import BALL, BOX, ROUND, Scenery


@dataclass
class Hits:
    """The first surface met by each ray (R rows).

    Attributes:
        distance: (R,) metres, infinite where nothing is met.
        solid: (R,) row in the scenery, -1 where nothing is met.
        cosine: (R,) cosine of the angle of incidence.
        glass: (R,) bool, the ray met a pane.
    """

    distance: np.ndarray
    solid: np.ndarray
    cosine: np.ndarray
    glass: np.ndarray


def candidates(
    scenery: Scenery, pose: np.ndarray, origin: np.ndarray, elevations: np.ndarray, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (ray, solid) that may meet.

    Args:
        scenery: M solids.
        pose: (3, 3) rotation from the sensor's frame to the world.
        origin: (3,) sensor position in the world.
        elevations: (B,) ascending elevation of the beams in the sensor's frame, radians.
        columns: number of columns C of a turn; ray ``beam * C + column`` has the azimuth
            ``2 pi column / C`` give or take one column.
    """
    corners = (scenery.corners() - origin) @ pose
    low, high = corners[..., 2].min(1), corners[..., 2].max(1)
    flat = corners[..., :2]
    farthest = np.linalg.norm(flat, axis=2).max(1)
    middle = flat.mean(1)
    # Nearest distance to the sensor's axis: the bounding box's, in a frame turned to its middle.
    nearest = _nearest(scenery, pose, origin, flat)
    bottom = np.arctan2(low, np.where(low < 0, nearest, farthest))
    top = np.arctan2(high, np.where(high > 0, nearest, farthest))
    margin = np.deg2rad(0.3)
    first = np.searchsorted(elevations, bottom - margin)
    rows = np.searchsorted(elevations, top + margin) - first

    centre = np.arctan2(middle[:, 1], middle[:, 0])
    turned = np.arctan2(flat[..., 1], flat[..., 0]) - centre[:, None]
    turned = (turned + np.pi) % (2 * np.pi) - np.pi
    pitch = 2 * np.pi / columns
    left = np.floor((centre + turned.min(1)) / pitch).astype(np.int64) - 2
    right = np.ceil((centre + turned.max(1)) / pitch).astype(np.int64) + 2
    width = np.minimum(right - left + 1, columns)
    around = nearest < 0.05  # stands around or above the sensor: every azimuth
    left, width = np.where(around, 0, left), np.where(around, columns, width)

    count = np.maximum(rows, 0) * width
    solid = np.repeat(np.arange(len(count)), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    beam = first[solid] + place // width[solid]
    column = (left[solid] + place % width[solid]) % columns
    return beam * columns + column, solid


def _nearest(scenery: Scenery, pose, origin, flat) -> np.ndarray:
    """Lower bound of the horizontal distance from the sensor's axis to each bounding box."""
    # Distance to the segment hull: the largest separation over the directions of the box's own
    # axes and of its middle is a lower bound, and exact enough for narrow windows.
    axes = np.einsum("ji,mjk->mki", pose, scenery.rotation)[..., :2]
    axes = np.concatenate([axes, flat.mean(1, keepdims=True)], axis=1)
    length = np.linalg.norm(axes, axis=2, keepdims=True)
    axes = axes / np.maximum(length, 1e-9)
    along = np.einsum("mkj,maj->mak", flat, axes)
    apart = np.maximum(along.min(2), -along.max(2))
    apart = np.where(length[..., 0] > 1e-6, apart, 0)
    return np.maximum(apart.max(1), 1e-3)


def meet_box(o: np.ndarray, d: np.ndarray, size: np.ndarray):
    """Rays and tapered boxes, all in the boxes' frames (P pairs).

    Returns:
        entry and exit distance (P,) and the unit normal at the entry (P, 3); a pair misses where
        entry >= exit.
    """
    bx, by, hz, tx, ty, shift = size.T
    zero, one = np.zeros(len(o)), np.ones(len(o))
    grow_front, grow_back = (tx + shift - bx) / (2 * hz), (tx - shift - bx) / (2 * hz)
    grow_side = (ty - by) / (2 * hz)
    mid_x, mid_y = 0.5 * (bx + tx), 0.5 * (by + ty)
    # Plane n . p <= c. The slanted sides pass through the middle of the two rectangles' edges.
    planes = (
        (one, zero, -grow_front, mid_x + 0.5 * shift),
        (-one, zero, -grow_back, mid_x - 0.5 * shift),
        (zero, one, -grow_side, mid_y),
        (zero, -one, -grow_side, mid_y),
        (zero, zero, one, hz),
        (zero, zero, -one, hz),
    )
    entry, leave = np.full(len(o), -np.inf), np.full(len(o), np.inf)
    normal = np.zeros((len(o), 3))
    for nx, ny, nz, c in planes:
        speed = nx * d[:, 0] + ny * d[:, 1] + nz * d[:, 2]
        gap = c - (nx * o[:, 0] + ny * o[:, 1] + nz * o[:, 2])
        with np.errstate(divide="ignore", invalid="ignore"):
            t = gap / speed
        inward, outward = speed < -1e-12, speed > 1e-12
        later = inward & (t > entry)
        entry = np.where(later, t, entry)
        normal[later] = np.stack([nx, ny, nz], axis=1)[later]
        leave = np.where(outward, np.minimum(leave, t), leave)
        leave = np.where(~inward & ~outward & (gap < 0), -np.inf, leave)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return entry, leave, normal


def meet_round(o: np.ndarray, d: np.ndarray, size: np.ndarray):
    """Rays and (truncated) cones about z with flat ends; as :func:`meet_box`."""
    bottom, top, hz = size[:, 0], size[:, 1], size[:, 2]
    k = (top - bottom) / (2 * hz)
    radius = 0.5 * (bottom + top) + k * o[:, 2]
    growth = k * d[:, 2]
    a = d[:, 0] ** 2 + d[:, 1] ** 2 - growth**2
    b = o[:, 0] * d[:, 0] + o[:, 1] * d[:, 1] - radius * growth
    c = o[:, 0] ** 2 + o[:, 1] ** 2 - radius**2
    root = b * b - a * c
    steep = a < 1e-9  # along the axis: only the ends matter
    with np.errstate(divide="ignore", invalid="ignore"):
        half = np.sqrt(np.maximum(root, 0))
        side_in, side_out = (-b - half) / a, (-b + half) / a
        low, high = (-hz - o[:, 2]) / d[:, 2], (hz - o[:, 2]) / d[:, 2]
    side_in = np.where(steep, -np.inf, side_in)
    side_out = np.where(steep, np.inf, side_out)
    level = np.abs(d[:, 2]) < 1e-12
    end_in = np.where(level, -np.inf, np.minimum(low, high))
    end_out = np.where(level, np.inf, np.maximum(low, high))
    miss = np.where(steep, c > 0, root <= 0) | (level & (np.abs(o[:, 2]) > hz))
    entry, leave = np.maximum(side_in, end_in), np.minimum(side_out, end_out)
    leave = np.where(miss, -np.inf, leave)
    at_end = end_in > side_in
    with np.errstate(invalid="ignore"):
        p = o + np.where(np.isfinite(entry), entry, 0)[:, None] * d
    here = np.maximum(0.5 * (bottom + top) + k * p[:, 2], 1e-6)
    normal = np.stack([p[:, 0] / here, p[:, 1] / here, -k], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    normal[at_end] = 0
    normal[at_end, 2] = -np.sign(d[at_end, 2])
    return entry, leave, normal


def meet_ball(o: np.ndarray, d: np.ndarray, size: np.ndarray):
    """Rays and ellipsoids; as :func:`meet_box`."""
    axes = size[:, :3]
    so, sd = o / axes, d / axes
    a = (sd * sd).sum(1)
    b = (so * sd).sum(1)
    root = b * b - a * ((so * so).sum(1) - 1)
    half = np.sqrt(np.maximum(root, 0))
    entry, leave = (-b - half) / a, np.where(root > 0, (-b + half) / a, -np.inf)
    normal = (o + entry[:, None] * d) / axes**2
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return entry, leave, normal


MEET = {BOX: meet_box, ROUND: meet_round, BALL: meet_ball}


def cast(
    scenery: Scenery,
    rays: np.ndarray,
    origin: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> Hits:
    """Nearest hit of each ray among the candidate ``pairs``.

    Args:
        scenery: M solids.
        rays: (R, 3) unit directions in the world.
        origin: (3,) their common start.
        pairs: (P,) rays and (P,) solids, from :func:`candidates`.
        rng: draws where porous surfaces stop a ray.
    """
    hits = Hits(
        distance=np.full(len(rays), np.inf),
        solid=np.full(len(rays), -1, np.int64),
        cosine=np.ones(len(rays)),
        glass=np.zeros(len(rays), bool),
    )
    local_origin = np.einsum("mji,mj->mi", scenery.rotation, origin - scenery.centre)
    found = []
    for kind, meet in MEET.items():
        chosen = scenery.kind[pairs[1]] == kind
        ray, solid = pairs[0][chosen], pairs[1][chosen]
        o = local_origin[solid]
        d = np.einsum("pji,pj->pi", scenery.rotation[solid], rays[ray])
        entry, leave, normal = meet(o, d, scenery.size[solid])
        hit = np.flatnonzero((entry < leave) & (entry > 0))
        ray, solid, o, d, normal = ray[hit], solid[hit], o[hit], d[hit], normal[hit]
        distance, glass = apply_skin(scenery, solid, o, d, normal, entry[hit], leave[hit], rng)
        cosine = np.abs((d * normal).sum(1))
        found.append((ray, solid, distance, cosine, glass))
    ray, solid, distance, cosine, glass = (np.concatenate(parts) for parts in zip(*found))
    np.minimum.at(hits.distance, ray, distance)
    first = np.isfinite(distance) & (distance == hits.distance[ray])
    hits.solid[ray[first]] = solid[first]
    hits.cosine[ray[first]] = cosine[first]
    hits.glass[ray[first]] = glass[first]
    return hits
