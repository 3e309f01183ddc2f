"""The sensor: 32 beams that spin once, range noise, lost returns, strength, labels and boxes."""

from dataclasses import dataclass

import numpy as np

from .classes import IGNORE, ROAD, SIDEWALK, TERRAIN
from .layout import Scene, draw_scene
from .raycast import candidates, cast

NOISE_CUT = 4.0  # range noise never exceeds this many standard deviations


@dataclass(frozen=True)
class Sensor:
    """A spinning LiDAR.

    Attributes:
        columns: firings of a turn.
        reach: farthest return, metres.
        noise: standard deviation of the range, metres.
        lost: share of the returns lost for no reason.
        grass: mean height at which blades of grass stop a beam, metres.
        edges: share of the beams at a depth edge that return a point between the two surfaces.
    """

    columns: int = 1080
    reach: float = 70.0
    noise: float = 0.018
    lost: float = 0.012
    grass: float = 0.03
    edges: float = 0.08

    def elevations(self) -> np.ndarray:
        """Elevation of the 32 beams, radians, ascending: dense around the horizon."""
        low = np.linspace(-25.0, -9.5, 11)
        middle = np.linspace(-8.4, 4.2, 16)
        high = np.linspace(5.4, 12.0, 5)
        return np.deg2rad(np.concatenate([low, middle, high]))


def generate_scan(seed, sensor: Sensor | None = None) -> dict[str, np.ndarray]:
    """Draw a street and scan it once.

    Args:
        seed: anything that :func:`numpy.random.default_rng` takes; the same seed gives the same
            scan.
        sensor: the sensor; default :class:`Sensor`.

    Returns:
        ``coord`` (N, 3) float32, metres, sensor frame (x forward, y left, z up); ``strength``
        (N, 1) float32 in [0, 1]; ``segment`` (N,) int32, -1 for points to ignore; ``instance``
        (N,) int32, row in ``boxes`` or -1; ``boxes`` (M, 8) float32: centre x y z, full lengths
        dx dy dz, metres, yaw, radians, class. Boxes without a return are left out.
    """
    rng = np.random.default_rng(seed)
    return scan(draw_scene(rng), sensor or Sensor(), rng)


def scan(scene: Scene, sensor: Sensor, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Scan a scene; as :func:`generate_scan`."""
    elevations = sensor.elevations()
    rays = _rays(elevations, sensor.columns, rng)
    world = rays @ scene.pose.T
    pairs = candidates(scene.scenery, scene.pose, scene.origin, elevations, sensor.columns)
    hits = cast(scene.scenery, world, scene.origin, pairs, rng)
    ground = scene.ground.meet(scene.origin, world, sensor.reach)

    on_ground = ground < hits.distance
    distance = np.minimum(ground, hits.distance)
    label = np.full(len(rays), IGNORE)
    thing = np.full(len(rays), -1)
    reflectivity, cosine = np.zeros(len(rays)), np.ones(len(rays))
    solid = np.flatnonzero(~on_ground & (hits.solid >= 0))
    row = hits.solid[solid]
    label[solid], thing[solid] = scene.scenery.label[row], scene.scenery.thing[row]
    reflectivity[solid], cosine[solid] = scene.scenery.reflectivity[row], hits.cosine[solid]
    flat = np.flatnonzero(on_ground & np.isfinite(ground))
    spot = scene.origin + ground[flat, None] * world[flat]
    label[flat] = scene.ground.label(spot[:, 0], spot[:, 1])
    normal = scene.ground.normal(spot[:, 0], spot[:, 1])
    cosine[flat] = np.abs((normal * world[flat]).sum(1))
    reflectivity[flat] = _paving(scene, label[flat], spot, rng)
    # Grass stops a beam a little before the soil, the earlier the flatter the beam.
    early = rng.exponential(sensor.grass, len(flat)) / np.maximum(cosine[flat], 0.1)
    distance[flat] -= np.where(label[flat] == TERRAIN, np.minimum(early, 0.5), 0)

    strength = reflectivity * (0.35 + 0.65 * np.sqrt(cosine)) / (1 + (distance / 80) ** 2)
    strength *= np.exp(rng.normal(0, 0.22, len(rays)))
    strength = np.clip(strength + rng.normal(0, 0.02, len(rays)), 0, 1)
    lost = rng.random(len(rays)) < sensor.lost
    lost |= hits.glass & ~on_ground
    # Little light comes back from dark surfaces far away or at a grazing angle.
    faint = 0.25 * (distance / sensor.reach) ** 2 * np.exp(-strength / 0.08)
    lost |= rng.random(len(rays)) < faint
    # A beam on an edge sees both surfaces; some sensors then report a range in between.
    beside = np.roll(distance.reshape(-1, sensor.columns), -1, axis=1).ravel()
    both = np.isfinite(beside) & np.isfinite(distance)
    step = np.subtract(beside, distance, where=both, out=np.zeros(len(rays)))
    between = (np.abs(step) > 0.6) & (np.abs(step) < 6) & (rng.random(len(rays)) < sensor.edges)
    distance = distance + between * rng.uniform(0.2, 0.8, len(rays)) * step
    label[between], thing[between] = IGNORE, -1

    noise = sensor.noise * np.clip(rng.normal(0, 1, len(rays)), -NOISE_CUT, NOISE_CUT)
    kept = np.isfinite(distance) & (distance < sensor.reach) & (distance > 1.0) & ~lost
    kept = kept.reshape(-1, sensor.columns).T.ravel()  # column by column, as a sensor fires
    order = np.arange(len(rays)).reshape(-1, sensor.columns).T.ravel()[kept]
    coord = rays[order] * (distance + noise)[order, None]
    instance, boxes = _boxes(scene, thing[order])
    return {
        "coord": coord.astype(np.float32),
        "strength": strength[order, None].astype(np.float32),
        "segment": label[order].astype(np.int32),
        "instance": instance,
        "boxes": boxes,
    }


def _rays(elevations: np.ndarray, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Unit directions (beams * columns, 3) in the sensor's frame, with small jitter."""
    pitch = 2 * np.pi / columns
    stagger = 0.5 * (np.arange(len(elevations)) % 2)  # neighbouring beams fire half a step apart
    azimuth = pitch * (np.arange(columns) + stagger[:, None])
    azimuth = azimuth + rng.normal(0, 0.05 * pitch, azimuth.shape)
    elevation = elevations[:, None] + np.deg2rad(rng.normal(0, 0.02, azimuth.shape))
    flat = np.cos(elevation)
    rays = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], axis=-1)
    return rays.reshape(-1, 3)


def _paving(scene: Scene, label: np.ndarray, spot: np.ndarray, rng) -> np.ndarray:
    """Reflectivity of ground points: a tone per scene, patches, and markings on the road."""
    tones = np.zeros(3)
    tones[[ROAD, SIDEWALK, TERRAIN]] = rng.uniform((0.1, 0.15, 0.2), (0.4, 0.5, 0.5))
    x, y = spot[:, 0], spot[:, 1]
    patches = np.sin(0.37 * x + 1.3 * np.sin(0.21 * y)) + np.sin(0.29 * y + 1.7 * np.sin(0.17 * x))
    tone = tones[label] * (1 + 0.18 * patches)
    main = scene.ground.streets[0]
    along, across = main.coordinates(x, y)
    dashed = (np.abs(across) < 0.09) & (along % 9 < 4)
    border = np.abs(np.abs(across) - main.width / 2 + 0.35) < 0.07
    tone[(label == ROAD) & (dashed | border)] = 0.7
    return tone


def _boxes(scene: Scene, thing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Instance of each point and boxes of the things that have a point, in the sensor's frame."""
    seen = np.unique(thing[thing >= 0])
    number = np.full(len(scene.things) + 1, -1)  # the last entry is stuff
    number[seen] = np.arange(len(seen))
    outline = scene.scenery.corners()
    boxes = np.zeros((len(seen), 8), np.float32)
    for row, one in enumerate(seen):
        points = (outline[scene.scenery.thing == one].reshape(-1, 3) - scene.origin) @ scene.pose
        heading = scene.headings[one]
        forward = np.array([np.cos(heading), np.sin(heading), 0]) @ scene.pose
        yaw = np.arctan2(forward[1], forward[0])
        c, s = np.cos(yaw), np.sin(yaw)
        turned = points @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        low, high = turned.min(0), turned.max(0)
        x, y, z = 0.5 * (low + high)
        centre = (c * x - s * y, s * x + c * y, z)
        boxes[row] = *centre, *(high - low), yaw, scene.things[one]
    return number[thing].astype(np.int32), boxes
