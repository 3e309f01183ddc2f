"""What stands where: draws the streets, their ground, buildings, plants, furniture and traffic."""

from dataclasses import dataclass, field

import numpy as np

from . import furniture, things
from .classes import BICYCLE, CAR, CONE, PEDESTRIAN, ROAD, SIDEWALK, TERRAIN, TRUCK
from .ground import Ground, Side, Street, Waves
from .solids import Scenery, Solid, pack, placed, turn_x, turn_y, turn_z

REACH = 65.0  # nothing stands farther along a street than this
NEAR = 42.0  # small things stand within this distance, so that they catch some beams


@dataclass
class Scene:
    """A street, ready to be scanned.

    Attributes:
        ground: height field.
        scenery: solids.
        things: class of each instance, by instance number.
        headings: heading of each instance, radians, world frame.
        origin: (3,) sensor position.
        pose: (3, 3) rotation from the sensor's frame (x forward, z up) to the world.
    """

    ground: Ground
    scenery: Scenery
    things: list[int]
    headings: list[float]
    origin: np.ndarray
    pose: np.ndarray


@dataclass
class Builder:
    """Collects objects and keeps their footprints apart.

    Footprints are sets of discs; ``add`` refuses an object that overlaps an earlier one or, unless
    told otherwise, stands on a carriageway.
    """

    rng: np.random.Generator
    ground: Ground
    solids: list[Solid] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    things: list[int] = field(default_factory=list)
    headings: list[float] = field(default_factory=list)
    discs: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))

    def add(
        self,
        solids: list[Solid],
        pose: tuple[float, float, float],
        half: tuple[float, float],
        thing: int | None = None,
        on_road: bool = False,
        upright: bool = True,
        snug: bool = False,
    ) -> bool:
        """Stand an object at x, y, heading unless its place is taken.

        Args:
            solids: the object in its own frame.
            pose: x, y, heading.
            half: half lengths of its footprint, along and across its heading.
            thing: class of a countable object, None for stuff.
            on_road: may stand on a carriageway.
            upright: vertical; otherwise tilted with the ground.
            snug: not checked against other objects (panels of one fence).
        """
        x, y, heading = pose
        discs = _footprint(x, y, heading, *half)
        if not on_road:
            gap = self.ground.from_kerb(discs[:, 0], discs[:, 1])
            if (gap < discs[:, 2] * 0.8).any():
                return False
        if not snug and len(self.discs):
            apart = np.hypot(
                discs[:, None, 0] - self.discs[:, 0], discs[:, None, 1] - self.discs[:, 1]
            )
            if (apart < discs[:, None, 2] + self.discs[:, 2]).any():
                return False
        self.discs = np.concatenate([self.discs, discs])
        here = np.array([x]), np.array([y])
        rotation = turn_z(heading)
        if not upright:
            rotation = _tilt(self.ground.normal(*here)[0]) @ rotation
        position = np.array([x, y, self.ground.height(*here)[0]])
        self.solids += placed(solids, rotation, position)
        number = -1
        if thing is not None:
            number = len(self.things)
            self.things.append(thing)
            self.headings.append(heading)
        self.owner += [number] * len(solids)
        return True


def _footprint(x: float, y: float, heading: float, long: float, wide: float) -> np.ndarray:
    """Discs (k, 3: x, y, radius) that cover the inside of a rectangle."""
    radius = max(min(long, wide, 2.0), 0.05)
    along = np.linspace(-1, 1, max(int(np.ceil(long / radius)), 1)) * (long - radius)
    across = np.linspace(-1, 1, max(int(np.ceil(wide / radius)), 1)) * (wide - radius)
    u, v = (a.ravel() for a in np.meshgrid(along, across))
    c, s = np.cos(heading), np.sin(heading)
    return np.stack([x + c * u - s * v, y + s * u + c * v, np.full(len(u), radius)], axis=1)


def _tilt(normal: np.ndarray) -> np.ndarray:
    """Smallest rotation that takes the z axis to ``normal``."""
    a, b, c = normal
    return np.array(
        [
            [1 - a * a / (1 + c), -a * b / (1 + c), a],
            [-a * b / (1 + c), 1 - b * b / (1 + c), b],
            [-a, -b, c],
        ]
    )


def draw_ground(rng: np.random.Generator) -> tuple[Ground, list[str]]:
    """Streets, their sides and slopes; also the style of the right and of the left side."""
    main = Street((0.0, 0.0), 0.0, rng.uniform(-0.006, 0.006), rng.uniform(6.2, 13.0))
    streets = [main]
    if rng.random() < 0.4:
        x, y, heading = main.pose(rng.choice([-1, 1]) * rng.uniform(10, 40), 0)
        turn = np.pi / 2 + rng.uniform(-0.3, 0.3)
        streets.append(Street((x, y), heading + turn, 0.0, rng.uniform(6.0, 10.0)))
    styles, sides = [], []
    for _ in range(2):
        style = str(rng.choice(["city", "houses", "park", "yard"], p=[0.3, 0.36, 0.2, 0.14]))
        verge = rng.uniform(0.8, 2.4) if rng.random() < 0.35 else 0.0
        walk = 0.0 if style == "park" and rng.random() < 0.3 else rng.uniform(1.5, 4.0)
        beyond = {"city": SIDEWALK, "houses": TERRAIN, "park": TERRAIN, "yard": ROAD}[style]
        bank = rng.uniform(-0.08, 0.18) if beyond == TERRAIN else 0.0
        styles.append(style)
        sides.append(Side(verge, walk, beyond, bank, rng.uniform(4, 14)))
    ground = Ground(
        streets=tuple(streets),
        right=sides[0],
        left=sides[1],
        kerb=rng.uniform(0.1, 0.18),
        slope=(rng.normal(0, 0.02), rng.normal(0, 0.015)),
        swell=Waves.draw(rng, (50, 150), 0.02, 3),
        roughness=Waves.draw(rng, (0.7, 3.5), 0.075, 6),
    )
    return ground, styles


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a street with everything in it and the place of the sensor."""
    ground, styles = draw_ground(rng)
    main = ground.streets[0]
    build = Builder(rng, ground)
    x, y, heading = main.pose(0.0, -main.width / 4)
    build.add([], (x, y, heading), (3.2, 1.2), on_road=True)  # the sensor's own car
    heading += rng.normal(0, 0.04) if rng.random() < 0.8 else rng.normal(0, 0.35)

    traffic(build, main)
    parking = rng.random(2) < (0.75 if main.width > 8 else 0.25)
    for street in ground.streets:
        for sign, side, style in zip((-1, 1), (ground.right, ground.left), styles):
            if street is main:
                if parking[(sign + 1) // 2]:
                    parked_row(build, street, sign)
                work_zone(build, street, sign)
                kerb_strip(build, street, sign, side)
            frontage(build, street, sign, side, style)
            if street is main:
                passers_by(build, street, sign, side)

    here = np.array([x]), np.array([y])
    above = rng.uniform(1.65, 2.05)
    normal = ground.normal(*here)[0]
    jitter = turn_x(rng.normal(0, 0.012)) @ turn_y(rng.normal(0, 0.012))
    pose = _tilt(normal) @ turn_z(heading) @ jitter
    origin = np.array([x, y, ground.height(*here)[0]]) + above * normal
    scenery = pack(build.solids, build.owner)
    return Scene(ground, scenery, build.things, build.headings, origin, pose)


def traffic(build: Builder, street: Street) -> None:
    """Cars and trucks that drive in the two lanes."""
    rng = build.rng
    for across, turn in ((-street.width / 4, 0.0), (street.width / 4, np.pi)):
        along = -REACH + rng.uniform(0, 25)
        while along < REACH:
            is_truck = rng.random() < 0.2
            x, y, heading = street.pose(along, across + rng.normal(0, 0.2))
            vehicle(build, (x, y, heading + turn + rng.normal(0, 0.03)), is_truck)
            along += rng.uniform(9, 45)


def vehicle(build: Builder, pose: tuple[float, float, float], is_truck: bool) -> bool:
    """A car or a truck on the carriageway."""
    make, label = (things.truck, TRUCK) if is_truck else (things.car, CAR)
    solids = make(build.rng)
    if is_truck:
        long = max(s.centre[0] + s.size[0] for s in solids if s.kind == 0)
    else:
        long = solids[0].size[0]
    half = (long + 0.25, 1.3 if is_truck else 1.0)
    return build.add(solids, pose, half, label, on_road=True, upright=False)


def parked_row(build: Builder, street: Street, sign: int) -> None:
    """Cars and a few trucks along the kerb."""
    rng = build.rng
    along, full = -50.0, rng.uniform(0.4, 0.9)
    while along < 50:
        is_truck = rng.random() < 0.08
        step = 11.0 if is_truck else 5.8
        if rng.random() < full:
            across = sign * (street.width / 2 - (1.4 if is_truck else 1.1))
            x, y, heading = street.pose(along + step / 2, across)
            turn = 0 if rng.random() < 0.85 else np.pi
            vehicle(build, (x, y, heading + turn + rng.normal(0, 0.03)), is_truck)
        along += step + rng.exponential(0.6)


def work_zone(build: Builder, street: Street, sign: int) -> None:
    """A row of cones along a lane or around a spot, with some clutter behind it."""
    rng = build.rng
    if rng.random() > 0.3:
        return
    start, step = rng.choice([-1, 1]) * rng.uniform(7, 22), rng.uniform(1.2, 2.5)
    across, drift = sign * (street.width / 2 - rng.uniform(0.4, 1.8)), rng.uniform(-0.12, 0.12)
    count = rng.integers(3, 6)
    for number in range(count):
        x, y, heading = street.pose(start + number * step, across - sign * drift * number)
        turned = (x, y, heading + rng.uniform(0, 1.5))
        build.add(things.cone(rng), turned, (0.2, 0.2), CONE, on_road=True)
    x, y, heading = street.pose(start + count * step * 0.5, sign * (street.width / 2 + 1.2))
    build.add(furniture.clutter(rng), (x, y, heading), (0.9, 0.9), on_road=True)


def kerb_strip(build: Builder, street: Street, sign: int, side: Side) -> None:
    """Lamps, signs, trees, bicycles and clutter between kerb and sidewalk."""
    rng = build.rng
    edge = street.width / 2

    def spot(along: float, gap: float, turn: float = 0.0):
        x, y, heading = street.pose(along, sign * (edge + gap))
        return x, y, heading + turn

    gap = rng.uniform(0.45, 0.8) if side.verge == 0 else side.verge / 2
    facing = 0.0 if sign < 0 else np.pi  # a sign faces the traffic of its own lane
    lamp_style = rng.random() < 0.75
    for along in np.arange(-45 + rng.uniform(0, 20), 45, rng.uniform(16, 30)):
        solids = furniture.lamp(rng) if lamp_style else furniture.wooden_pole(rng)
        build.add(solids, spot(along, gap, 0 if sign < 0 else np.pi), (0.15, 0.15))
    for _ in range(rng.integers(2, 6)):
        along = rng.uniform(-NEAR, NEAR)
        turn = facing + rng.normal(0, 0.2) + (np.pi if rng.random() < 0.2 else 0)
        make = furniture.sign if rng.random() < 0.8 else furniture.traffic_light
        build.add(make(rng), spot(along, gap, turn), (0.2, 0.5))
    if rng.random() < 0.5:
        step = rng.uniform(6, 12)
        for along in np.arange(-50 + rng.uniform(0, step), 50, step):
            if rng.random() < 0.85:
                build.add(furniture.tree(rng), spot(along, gap + 0.3), (0.35, 0.35))
    for _ in range(rng.integers(0, 3)):  # racks
        along, turn = rng.uniform(-25, 25), rng.choice([0, np.pi / 2]) + rng.normal(0, 0.06)
        for number in range(rng.integers(1, 5)):
            step = 1.9 if turn < 0.8 else 0.7
            pose = spot(along + step * number, gap + 0.7 * np.sin(turn), turn + rng.normal(0, 0.05))
            build.add(things.bicycle(rng), pose, (0.9, 0.25), BICYCLE)
    for _ in range(rng.integers(1, 5)):
        pose = spot(rng.uniform(-NEAR, NEAR), gap + 0.35, rng.choice([0, np.pi]))
        build.add(furniture.clutter(rng), pose, (0.9, 0.6))
    if rng.random() < 0.4:
        along = rng.choice([-1, 1]) * rng.uniform(6, 15)
        build.add(things.cone(rng), spot(along, gap), (0.2, 0.2), CONE)


def passers_by(build: Builder, street: Street, sign: int, side: Side) -> None:
    """Pedestrians on the sidewalk, alone or in groups, and now and then one on the road."""
    rng = build.rng
    edge = street.width / 2 + side.verge
    for _ in range(rng.integers(1, 6)):
        along, turn = rng.uniform(-30, 30), rng.choice([0, np.pi]) + rng.normal(0, 0.3)
        across = edge + rng.uniform(0.6, max(side.walk, 1.0))
        if rng.random() < 0.12:
            across = street.width / 2 - rng.uniform(0.5, 2)
        for number in range(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])):
            x, y, heading = street.pose(along + rng.normal(0, 0.2), sign * (across + 0.65 * number))
            pose = x, y, heading + turn + rng.normal(0, 0.2)
            build.add(things.pedestrian(rng), pose, (0.3, 0.3), PEDESTRIAN, on_road=True)


def frontage(build: Builder, street: Street, sign: int, side: Side, style: str) -> None:
    """What stands behind the sidewalk: blocks, houses with gardens, a park or a parking yard."""
    edge = street.width / 2 + side.verge + side.walk
    if style == "city":
        blocks(build, street, sign, edge + build.rng.uniform(0.1, 3), house=False)
    elif style == "houses":
        setback = build.rng.uniform(4, 10)
        blocks(build, street, sign, edge + setback, house=True)
        boundary(build, street, sign, edge + 0.3)
        plants(build, street, sign, edge + 1.2, edge + setback + 12, 14)
    elif style == "park":
        boundary(build, street, sign, edge + 0.4)
        plants(build, street, sign, edge + 1.5, edge + 35, 45)
        blocks(build, street, sign, edge + build.rng.uniform(28, 40), house=False)
    else:
        yard(build, street, sign, edge)
        blocks(build, street, sign, edge + build.rng.uniform(20, 28), house=False)


def blocks(build: Builder, street: Street, sign: int, start: float, house: bool) -> None:
    """A row of buildings whose fronts stand ``start`` metres from the centre line."""
    rng = build.rng
    along = -REACH
    while along < REACH:
        length, depth = rng.uniform(8, 14) if house else rng.uniform(10, 26), rng.uniform(8, 12)
        inset = rng.uniform(0, 1.5) if house or rng.random() < 0.3 else 0.0
        x, y, heading = street.pose(along + length / 2, sign * (start + inset + depth / 2))
        solids = furniture.building(rng, length, depth, house)
        build.add(solids, (x, y, heading), (length / 2, depth / 2))
        along += length
        if house:
            space = rng.uniform(2, 9)
            if space > 5.5:
                x, y, heading = street.pose(along + space / 2, sign * (start + 5))
                build.add(furniture.garage(rng), (x, y, heading), (3.0, 3.0))
            along += space
        elif rng.random() < 0.3:
            along += rng.uniform(1.5, 8)


def boundary(build: Builder, street: Street, sign: int, across: float) -> None:
    """Fences, garden walls and hedges between sidewalk and gardens, with gaps."""
    rng = build.rng
    along, panel = -50.0, 2.4
    while along < 50:
        run = rng.uniform(6, 20)
        style = str(rng.choice(["slats", "mesh", "wall", "hedge", "none"],
                               p=[0.28, 0.2, 0.14, 0.22, 0.16]))  # fmt: skip
        height, tone = rng.uniform(0.8, 2.0), rng.uniform(0.15, 0.6)
        for place in np.arange(along, along + run, panel):
            if style == "none":
                break
            x, y, heading = street.pose(place + panel / 2, sign * across)
            solids = (
                furniture.hedge(rng, panel, height)
                if style == "hedge"
                else furniture.fence_panel(panel, height, style, tone)
            )
            wide = 0.5 if style == "hedge" else 0.15
            build.add(solids, (x, y, heading), (panel / 2, wide), upright=False, snug=True)
        along += run + (rng.uniform(1, 4) if rng.random() < 0.5 else 0)


def plants(build: Builder, street: Street, sign: int, near: float, far: float, count: int) -> None:
    """Trees, bushes and a little clutter in gardens and parks."""
    rng = build.rng
    for _ in range(count):
        x, y, heading = street.pose(rng.uniform(-50, 50), sign * rng.uniform(near, far))
        kind = rng.choice(3, p=[0.5, 0.43, 0.07])
        make = (furniture.tree, furniture.bush, furniture.clutter)[kind]
        size = (0.5, 0.9, 1.2)[kind]
        build.add(make(rng), (x, y, heading + rng.uniform(0, 6)), (size, size))


def yard(build: Builder, street: Street, sign: int, edge: float) -> None:
    """Rows of cars, a few trucks and clutter on a paved yard behind the sidewalk."""
    rng = build.rng
    for row in range(2):
        along = -40 + rng.uniform(0, 3)
        while along < 40:
            if rng.random() < 0.6:
                x, y, heading = street.pose(along, sign * (edge + 4 + 11 * row))
                turn = rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.04)
                vehicle(build, (x, y, heading + turn), rng.random() < 0.1)
            along += rng.uniform(2.6, 3.2)
    for _ in range(4):
        x, y, heading = street.pose(rng.uniform(-40, 40), sign * (edge + rng.uniform(1, 18)))
        build.add(furniture.clutter(rng), (x, y, heading), (1.0, 1.0))
    boundary(build, street, sign, edge + 19)
