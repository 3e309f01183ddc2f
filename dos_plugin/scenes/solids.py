"""Solids that streets are built of: tapered boxes, round posts and balls, with a skin each.

An object (a car, a tree) is a list of solids in its own frame: x forward, y left, z up, standing
on z = 0, metres. :func:`placed` moves such a list into the world.
"""

from dataclasses import dataclass, replace

import numpy as np

BOX, ROUND, BALL = 0, 1, 2

# How a ray meets the surface; the numbers in `skin_values` are given behind each name.
PLAIN = 0
FACADE = 1  # window pitch, window width, storey height, window height, depth of the recess
SLATS = 2  # pitch, slat width, height of the rails
MESH = 3  # probability that a ray is stopped
FOLIAGE = 4  # mean free path inside the volume
GLASS = 5  # probability that no light comes back


@dataclass(frozen=True)
class Solid:
    """One convex body.

    Attributes:
        kind: ``BOX``, ``ROUND`` or ``BALL``.
        centre: centre of its bounding box, metres.
        size: for a box: half lengths x, y of the bottom, half height, half lengths x, y of the top,
            shift of the top along x. For a round: bottom radius, top radius, half height (its axis
            is z). For a ball: the three half axes.
        label: class of its points.
        reflectivity: share of the light that comes back at normal incidence, 0 to 1.
        rotation: (3, 3) from the solid's axes to the frame of ``centre``.
        skin: how rays meet the surface.
        skin_values: numbers of the skin.
    """

    kind: int
    centre: tuple[float, float, float]
    size: tuple[float, ...]
    label: int
    reflectivity: float
    rotation: np.ndarray | None = None
    skin: int = PLAIN
    skin_values: tuple[float, ...] = ()


def box(centre, lengths, label, reflectivity, top=None, shift=0.0, **skin) -> Solid:
    """A box of full ``lengths`` x, y, z; ``top`` gives other full lengths x, y to its top."""
    top = lengths[:2] if top is None else top
    size = (*(v / 2 for v in lengths), top[0] / 2, top[1] / 2, shift)
    return Solid(BOX, tuple(centre), size, label, reflectivity, **skin)


def post(
    base, height, radius, label, reflectivity, top_radius=None, rotation=None, **skin
) -> Solid:
    """A round post that stands on ``base``; ``rotation`` tilts it about its foot."""
    top_radius = radius if top_radius is None else top_radius
    axis = np.array([0, 0, height / 2]) if rotation is None else rotation[:, 2] * height / 2
    centre = tuple(np.asarray(base) + axis)
    size = (radius, top_radius, height / 2)
    return Solid(ROUND, centre, size, label, reflectivity, rotation=rotation, **skin)


def disc(centre, radius, thickness, axis, label, reflectivity, **skin) -> Solid:
    """A round plate whose ``axis`` is "x" or "y"."""
    turn = turn_y(np.pi / 2) if axis == "x" else turn_x(np.pi / 2)
    size = (radius, radius, thickness / 2)
    return Solid(ROUND, tuple(centre), size, label, reflectivity, rotation=turn, **skin)


def ball(centre, half_axes, label, reflectivity, **skin) -> Solid:
    """An ellipsoid with the given half axes x, y, z."""
    return Solid(BALL, tuple(centre), tuple(half_axes), label, reflectivity, **skin)


def turn_x(angle: float) -> np.ndarray:
    """Rotation matrix about x, radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def turn_y(angle: float) -> np.ndarray:
    """Rotation matrix about y, radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def turn_z(angle: float) -> np.ndarray:
    """Rotation matrix about z, radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def placed(solids: list[Solid], rotation: np.ndarray, position: np.ndarray) -> list[Solid]:
    """The same solids moved by ``rotation`` (3, 3), then by ``position`` (3,)."""
    moved = []
    for solid in solids:
        own = rotation if solid.rotation is None else rotation @ solid.rotation
        centre = tuple(rotation @ np.asarray(solid.centre) + position)
        moved.append(replace(solid, centre=centre, rotation=own))
    return moved


@dataclass
class Scenery:
    """All solids of a scene as arrays, one row a solid (M rows).

    Attributes:
        kind: (M,) int64.
        centre: (M, 3) metres.
        rotation: (M, 3, 3) from a solid's axes to the world.
        size: (M, 6), as :class:`Solid` says, padded with zeros.
        half: (M, 3) half lengths of the bounding box along the solid's own axes.
        label, thing: (M,) int64; thing is -1 for stuff.
        reflectivity: (M,).
        skin: (M,) int64.
        skin_values: (M, 5), padded with zeros.
    """

    kind: np.ndarray
    centre: np.ndarray
    rotation: np.ndarray
    size: np.ndarray
    half: np.ndarray
    label: np.ndarray
    thing: np.ndarray
    reflectivity: np.ndarray
    skin: np.ndarray
    skin_values: np.ndarray

    def corners(self) -> np.ndarray:
        """Corners of the bounding boxes, (M, 8, 3), world frame."""
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
        local = self.half[:, None, :] * signs
        return np.einsum("mij,mkj->mki", self.rotation, local) + self.centre[:, None, :]


def pack(solids: list[Solid], things: list[int]) -> Scenery:
    """Turn a list of solids and their instance numbers (-1 for stuff) into arrays.

    Raises:
        ValueError: the lists differ in length, or a cone is too flat for the ray caster.
    """
    if len(solids) != len(things):
        raise ValueError(f"things: {len(things)} numbers for {len(solids)} solids")
    count = len(solids)
    size, half = np.zeros((count, 6)), np.zeros((count, 3))
    skin_values = np.zeros((count, 5))
    for row, solid in enumerate(solids):
        values = solid.size
        size[row, : len(values)] = values
        skin_values[row, : len(solid.skin_values)] = solid.skin_values
        if solid.kind == BOX:
            reach_x = max(values[0], values[3] + abs(values[5]))
            half[row] = reach_x, max(values[1], values[4]), values[2]
        elif solid.kind == ROUND:
            if abs(values[1] - values[0]) > 3 * values[2]:
                raise ValueError(f"size: a round of {values} is flatter than 1.5 to 1")
            half[row] = max(values[:2]), max(values[:2]), values[2]
        else:
            half[row] = values[:3]
    eye = np.eye(3)
    rotations = [eye if s.rotation is None else s.rotation for s in solids]
    return Scenery(
        kind=np.array([s.kind for s in solids], np.int64),
        centre=np.array([s.centre for s in solids], float).reshape(-1, 3),
        rotation=np.array(rotations, float).reshape(-1, 3, 3),
        size=size,
        half=half,
        label=np.array([s.label for s in solids], np.int64),
        thing=np.array(things, np.int64),
        reflectivity=np.array([s.reflectivity for s in solids], float),
        skin=np.array([s.skin for s in solids], np.int64),
        skin_values=skin_values,
    )
