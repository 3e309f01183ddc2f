"""What happens where a ray meets a surface: recessed windows, slats, meshes, foliage."""

import numpy as np

from .solids import FACADE, FOLIAGE, GLASS, MESH, SLATS, Scenery

WINDOW_SHARE_GLASS = 0.45  # share of the rays that a window pane sends nowhere useful


def apply_skin(
    scenery: Scenery,
    solid: np.ndarray,
    o: np.ndarray,
    d: np.ndarray,
    normal: np.ndarray,
    entry: np.ndarray,
    leave: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Let each pair of ray and solid pass, stop or go deeper.

    Args:
        scenery: the solids.
        solid: (P,) rows in the scenery.
        o, d: (P, 3) origin and direction of the rays in the solids' frames.
        normal: (P, 3) surface normals at the entry, the same frames.
        entry, leave: (P,) distances where the rays enter and leave the solids.
        rng: draws for porous surfaces.

    Returns:
        (P,) distance of the hit, infinite where the ray passes; (P,) bool, whether it is a pane.
    """
    distance, glass = entry.copy(), np.zeros(len(entry), bool)
    skin, values = scenery.skin[solid], scenery.skin_values[solid]
    luck = rng.random(len(entry))

    leaves = skin == FOLIAGE
    distance[leaves] -= values[leaves, 0] * np.log1p(-luck[leaves])
    distance[leaves & (distance > leave)] = np.inf

    distance[(skin == MESH) & (luck > values[:, 0])] = np.inf

    glass[(skin == GLASS) & (luck < values[:, 0])] = True

    slats = np.flatnonzero(skin == SLATS)
    if len(slats):
        p = o[slats] + entry[slats, None] * d[slats]
        pitch, width, rail = values[slats, :3].T
        half_height = scenery.half[solid[slats], 2]
        at_rail = half_height - np.abs(p[:, 2]) < rail
        distance[slats[(p[:, 0] % pitch > width) & ~at_rail]] = np.inf

    front = np.flatnonzero((skin == FACADE) & (np.abs(normal[:, 2]) < 0.5))
    if len(front):
        deeper, pane = _windows(
            o[front], d[front], normal[front], entry[front],
            values[front], scenery.half[solid[front]],
        )  # fmt: skip
        distance[front] = deeper
        glass[front] = pane & (luck[front] < WINDOW_SHARE_GLASS)
    return distance, glass


def _windows(o, d, normal, entry, values, half):
    """Rays on facades: those that enter a window go on to its pane or to the side of the recess."""
    pitch, width, storey, tall, depth = values.T
    on_x = np.abs(normal[:, 0]) > 0.5  # the face looks along x, so its windows run along y
    p = o + entry[:, None] * d
    u, du = np.where(on_x, p[:, 1], p[:, 0]), np.where(on_x, d[:, 1], d[:, 0])
    z, dz = p[:, 2] + half[:, 2], d[:, 2]
    inward = np.abs((d * normal).sum(1))
    room = np.where(on_x, half[:, 1], half[:, 0]) - 0.5 * pitch
    from_u = u % pitch - 0.5 * pitch
    from_z = z % storey - 0.55 * storey
    inside = (np.abs(from_u) < width / 2) & (np.abs(from_z) < tall / 2)
    inside &= (np.abs(u) < room) & (z < 2 * half[:, 2] - 0.4)
    with np.errstate(divide="ignore"):
        to_pane = depth / np.maximum(inward, 1e-6)
        to_side = (width / 2 - np.sign(du) * from_u) / np.abs(du)
        to_sill = (tall / 2 - np.sign(dz) * from_z) / np.abs(dz)
    more = np.minimum(np.minimum(to_pane, to_side), to_sill)
    return entry + np.where(inside, more, 0), inside & (to_pane <= more)
