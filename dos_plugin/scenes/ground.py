"""The ground: streets with kerbs, sidewalks and terrain on a gently sloping height field."""

from dataclasses import dataclass

import numpy as np

from .classes import ROAD, SIDEWALK, TERRAIN

KERB_RAMP = 0.06  # horizontal length of a kerb's face, metres


@dataclass(frozen=True)
class Street:
    """A carriageway along a parabola.

    Attributes:
        origin: (2,) a point of the centre line, world metres.
        heading: direction at the origin, radians.
        curvature: 1 / radius at the origin, 1 / m, positive to the left.
        width: kerb to kerb, metres.
    """

    origin: tuple[float, float]
    heading: float
    curvature: float
    width: float

    def pose(self, along: float, across: float) -> tuple[float, float, float]:
        """World x, y and the street's heading at ``along`` and ``across`` (positive = left)."""
        slope = self.curvature * along
        turn = np.arctan(slope)
        x = along - across * np.sin(turn)
        y = 0.5 * slope * along + across * np.cos(turn)
        c, s = np.cos(self.heading), np.sin(self.heading)
        ox, oy = self.origin
        return ox + c * x - s * y, oy + s * x + c * y, self.heading + turn

    def coordinates(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Along and across (signed distance from the centre line) of world points."""
        c, s = np.cos(self.heading), np.sin(self.heading)
        dx, dy = x - self.origin[0], y - self.origin[1]
        u, v = c * dx + s * dy, c * dy - s * dx
        if self.curvature == 0:
            return u, v
        foot = u
        for _ in range(2):  # Gauss-Newton towards the nearest point of the parabola
            slope = self.curvature * foot
            rise = v - 0.5 * slope * foot
            foot = foot + (u - foot + rise * slope) / (1 + slope * slope)
        slope = self.curvature * foot
        across = ((v - 0.5 * slope * foot) - slope * (u - foot)) / np.sqrt(1 + slope * slope)
        return foot, across


@dataclass(frozen=True)
class Side:
    """What lies beside a street on one side, from the kerb outwards.

    Attributes:
        verge: width of a grass strip at the kerb, metres; 0 for none.
        walk: width of the sidewalk; 0 for none.
        beyond: class of the ground behind the sidewalk.
        bank: slope of the ground behind the sidewalk.
        bank_end: distance over which the bank rises or falls, metres.
    """

    verge: float
    walk: float
    beyond: int
    bank: float
    bank_end: float


@dataclass(frozen=True)
class Waves:
    """A sum of plane waves: ``amplitude * sin(kx x + ky y + phase)``."""

    kx: np.ndarray
    ky: np.ndarray
    phase: np.ndarray
    amplitude: np.ndarray

    @staticmethod
    def draw(rng: np.random.Generator, lengths: tuple[float, float], slope: float, count: int):
        """Random waves with wavelengths in ``lengths`` and a largest slope of ``slope`` each."""
        number = 2 * np.pi / rng.uniform(*lengths, count)
        angle = rng.uniform(0, 2 * np.pi, count)
        amplitude = slope * rng.uniform(0.3, 1, count) / number
        phase = rng.uniform(0, 2 * np.pi, count)
        return Waves(number * np.cos(angle), number * np.sin(angle), phase, amplitude)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # Single precision: far finer than the range noise, and its sine is several times faster.
        kx, ky, phase, amplitude = np.array(list(vars(self).values()), np.float32)
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        return np.sin(np.multiply.outer(x, kx) + np.multiply.outer(y, ky) + phase) @ amplitude


@dataclass(frozen=True)
class Ground:
    """Height and class of the ground everywhere.

    Attributes:
        streets: the main street first, crossing ones after it.
        right, left: sides of the streets (across < 0, across > 0 of the main street).
        kerb: height of the sidewalk above the road, metres.
        slope: (2,) overall slope.
        swell: long waves of the whole ground.
        roughness: short waves of terrain.
    """

    streets: tuple[Street, ...]
    right: Side
    left: Side
    kerb: float
    slope: tuple[float, float]
    swell: Waves
    roughness: Waves

    def from_kerb(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance from the nearest carriageway's kerb, metres; negative on the road."""
        gaps = [np.abs(s.coordinates(x, y)[1]) - s.width / 2 for s in self.streets]
        return gaps[0] if len(gaps) == 1 else np.minimum.reduce(gaps)

    def _bands(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        """Distance from the kerb and, for each point, verge, walk, beyond, bank, bank_end."""
        across = self.streets[0].coordinates(x, y)[1]
        gap = np.abs(across) - self.streets[0].width / 2
        for street in self.streets[1:]:
            gap = np.minimum(gap, np.abs(street.coordinates(x, y)[1]) - street.width / 2)
        sides = np.array([list(vars(side).values()) for side in (self.right, self.left)])
        return gap, *sides[(across > 0).astype(np.int64)].T

    def height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Height of the ground at world points, metres."""
        gap, verge, walk, beyond, bank, bank_end = self._bands(x, y)
        level = self.slope[0] * x + self.slope[1] * y + self.swell(x, y)
        level += self.kerb * np.clip(gap / KERB_RAMP, 0, 1)
        behind = gap - verge - walk
        level += bank * np.clip(behind, 0, bank_end)
        # A paved yard lies as low as the road: the sidewalk is a raised strip between the two.
        level -= np.where(beyond == ROAD, self.kerb * np.clip(behind / KERB_RAMP, 0, 1), 0)
        soft = np.flatnonzero((beyond == TERRAIN) & (behind > 0) | (gap > 0) & (gap < verge))
        level[soft] += self.roughness(x[soft], y[soft])
        return level

    def label(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Class of the ground at world points, int64."""
        gap, verge, walk, beyond, _, _ = self._bands(x, y)
        label = np.where(gap < verge + walk, SIDEWALK, beyond)
        label = np.where(gap < verge, TERRAIN, label)
        return np.where(gap < KERB_RAMP / 2, ROAD, label).astype(np.int64)

    def normal(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Unit normals (N, 3) by central differences over 10 cm."""
        step = 0.05
        around = np.concatenate([x + step, x - step, x, x])
        levels = self.height(around, np.concatenate([y, y, y + step, y - step])).reshape(4, -1)
        dx, dy = (levels[0] - levels[1]) / (2 * step), (levels[2] - levels[3]) / (2 * step)
        normal = np.stack([-dx, -dy, np.ones_like(dx)], axis=1)
        return normal / np.linalg.norm(normal, axis=1, keepdims=True)

    def meet(self, origin: np.ndarray, rays: np.ndarray, reach: float) -> np.ndarray:
        """Distance along each ray to the ground, metres; infinite where there is none.

        Args:
            origin: (3,) start of all rays, above the ground.
            rays: (R, 3) unit directions.
            reach: farthest distance to look at, metres.
        """
        before, after = np.zeros(len(rays)), np.full(len(rays), np.inf)
        # A step that no slope up to `steepest` can cross; kerbs are caught by the bracket.
        steepest = 0.1
        index = np.flatnonzero(rays[:, 2] < 0.12)
        near = np.zeros(len(index))
        far = np.full(len(index), 1.0)
        while len(index):
            d = rays[index]
            x, y = origin[0] + far * d[:, 0], origin[1] + far * d[:, 1]
            above = origin[2] + far * d[:, 2] - self.height(x, y)
            hit = above <= 0
            before[index[hit]], after[index[hit]] = near[hit], far[hit]
            keep = ~hit & (far < reach)
            index, above, near = index[keep], above[keep], far[keep]
            step = above / np.maximum(steepest - d[keep, 2], 0.02)
            far = np.minimum(near + np.clip(step, 0.1 + 0.015 * near, 6.0), reach)
        met = np.full(len(rays), np.inf)
        hit = np.isfinite(after)
        met[hit] = self._bisect(origin, rays[hit], before[hit], after[hit])
        return met

    def _bisect(self, origin, d, near, far) -> np.ndarray:
        for _ in range(8):
            middle = 0.5 * (near + far)
            x, y = origin[0] + middle * d[:, 0], origin[1] + middle * d[:, 1]
            below = origin[2] + middle * d[:, 2] <= self.height(x, y)
            near, far = np.where(below, near, middle), np.where(below, middle, far)
        return 0.5 * (near + far)
