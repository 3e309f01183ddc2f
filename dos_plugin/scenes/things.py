"""Countable objects: cars, trucks, bicycles, pedestrians, cones. Each in its own frame, metres."""

import numpy as np

from .classes import BICYCLE, CAR, CONE, PEDESTRIAN, TRUCK
from .solids import GLASS, MESH, Solid, ball, box, disc, placed, post, turn_x, turn_y

PANE = {"skin": GLASS, "skin_values": (0.55,)}


def paint(rng: np.random.Generator) -> float:
    """Reflectivity of a car's paint: anything from black to white."""
    return rng.uniform(0.06, 0.75)


def car(rng: np.random.Generator) -> list[Solid]:
    """A hatchback, saloon, estate or van, 3.6 to 5.2 m long."""
    shape = rng.choice(4, p=[0.3, 0.35, 0.2, 0.15])
    length = rng.uniform(*((3.6, 4.2), (4.4, 5.0), (4.4, 4.9), (4.7, 5.2))[shape])
    width = rng.uniform(1.68, 1.9) + (0.1 if shape == 3 else 0)
    height = rng.uniform(*((1.42, 1.6), (1.4, 1.5), (1.45, 1.75), (1.85, 2.1))[shape])
    # Where the cabin's foot and roof begin and end, as shares of the length from the rear.
    foot, roof = (
        ((0.02, 0.74), (0.12, 0.55)),
        ((0.14, 0.72), (0.27, 0.55)),
        ((0.02, 0.73), (0.08, 0.57)),
        ((0.01, 0.9), (0.03, 0.72)),
    )[shape]
    belt = height * rng.uniform(0.56, 0.62)
    tone = paint(rng)
    body = box(
        (0, 0, (0.2 + belt) / 2), (length, width, belt - 0.2), CAR, tone, top=(length - 0.25, width)
    )
    middle = length * ((foot[0] + foot[1]) / 2 - 0.5)
    shift = length * ((roof[0] + roof[1]) / 2 - 0.5) - middle
    cabin = box(
        (middle, 0, (belt + height) / 2),
        (length * (foot[1] - foot[0]), width - 0.06, height - belt),
        CAR,
        0.5 * tone,
        top=(length * (roof[1] - roof[0]), width - 0.4),
        shift=shift,
        **PANE,
    )
    wheels = [
        disc((x * length, y * (width / 2 - 0.1), 0.32), 0.32, 0.24, "y", CAR, 0.1)
        for x in (-0.3, 0.31)
        for y in (-1, 1)
    ]
    mirrors = [
        box(
            (middle + 0.22 * length, y * (width / 2 + 0.08), belt + 0.06),
            (0.12, 0.2, 0.14),
            CAR,
            tone,
        )
        for y in (-1, 1)
    ]
    return [body, cabin, *wheels, *mirrors]


def truck(rng: np.random.Generator) -> list[Solid]:
    """A lorry with a cab and a box, a tanker or an open bed behind it, 6.5 to 11 m long."""
    cab_length, bed_length = rng.uniform(1.7, 2.2), rng.uniform(4.4, 8.2)
    gap, width = rng.uniform(0.25, 0.5), rng.uniform(2.3, 2.55)
    length = cab_length + gap + bed_length
    front, rear = length / 2, -length / 2
    cab_height, tone, tone_bed = rng.uniform(2.5, 3.2), paint(rng), paint(rng)
    deck = rng.uniform(0.95, 1.15)
    solids = [
        box(
            (front - cab_length / 2, 0, (0.45 + cab_height) / 2),
            (cab_length, width - 0.1, cab_height - 0.45),
            TRUCK,
            tone,
            top=(cab_length - 0.3, width - 0.2),
            shift=-0.15,
        ),
        box((-0.2, 0, deck - 0.18), (length - 0.6, 0.9, 0.34), TRUCK, 0.12),
    ]
    middle = rear + bed_length / 2
    load = rng.choice(3, p=[0.65, 0.2, 0.15])
    if load == 0:
        tall = rng.uniform(2.0, 2.7)
        solids.append(box((middle, 0, deck + tall / 2), (bed_length, width, tall), TRUCK, tone_bed))
    elif load == 1:
        radius = rng.uniform(0.95, 1.15)
        tank = post((rear, 0, deck + radius), bed_length, radius, TRUCK, tone_bed,
                    rotation=turn_y(np.pi / 2))  # fmt: skip
        solids.append(tank)
    else:
        low = rng.uniform(0.6, 1.0)
        solids.append(box((middle, 0, deck + low / 2), (bed_length, width, low), TRUCK, tone_bed))
        heap = (bed_length * 0.4, width * 0.4, low + rng.uniform(0.1, 0.5))
        solids.append(ball((middle, 0, deck + 0.1), heap, TRUCK, 0.3))
    axles = [front - 0.55 * cab_length, rear + 0.8, rear + 1.9]
    solids += [
        disc((x, y * (width / 2 - 0.16), 0.5), 0.5, 0.3, "y", TRUCK, 0.1)
        for x in axles
        for y in (-1, 1)
    ]
    return solids


def bicycle(rng: np.random.Generator) -> list[Solid]:
    """A parked bicycle, 1.7 m long, leaning a little."""
    tone, size = paint(rng), rng.uniform(0.92, 1.08)
    spokes = {"skin": MESH, "skin_values": (0.6,)}
    radius = 0.34 * size
    solids = [
        disc((x * size, 0, radius), radius, 0.06, "y", BICYCLE, 0.25, **spokes)
        for x in (-0.52, 0.52)
    ]
    frame = {"skin": MESH, "skin_values": (0.7,)}
    solids += [
        box((0, 0, 0.55 * size), (0.62 * size, 0.06, 0.4 * size), BICYCLE, tone,
            top=(0.8 * size, 0.06), **frame),
        post((0.5 * size, 0, 0.5 * size), 0.55 * size, 0.035, BICYCLE, tone,
             rotation=turn_y(-0.25)),
        box((0.4 * size, 0, 1.04 * size), (0.1, 0.56, 0.07), BICYCLE, 0.3),
        post((-0.2 * size, 0, 0.6 * size), 0.35 * size, 0.035, BICYCLE, tone),
        box((-0.22 * size, 0, 0.97 * size), (0.28, 0.17, 0.09), BICYCLE, 0.15),
    ]  # fmt: skip
    if rng.random() < 0.4:
        solids.append(box((-0.5 * size, 0, 0.76 * size), (0.42, 0.2, 0.12), BICYCLE, 0.3))
    lean = turn_x(rng.uniform(-0.12, 0.12))
    return placed(solids, lean, np.zeros(3))


def pedestrian(rng: np.random.Generator) -> list[Solid]:
    """Somebody standing or walking, 1.15 to 1.95 m tall."""
    height = rng.uniform(1.55, 1.95) if rng.random() < 0.88 else rng.uniform(1.15, 1.5)
    k = height / 1.75
    coat, trousers = rng.uniform(0.08, 0.6, 2)
    stride, swing = rng.uniform(0, 0.38), rng.uniform(0, 0.5)
    hip, broad = 0.86 * k, rng.uniform(0.19, 0.25) * k
    solids = [
        ball((0, 0, 1.17 * k), (0.15 * k, broad, 0.38 * k), PEDESTRIAN, coat),
        ball((0.02, 0, 1.62 * k), (0.11 * k, 0.095 * k, 0.135 * k), PEDESTRIAN, 0.35),
    ]
    for side, way in ((-1, 1), (1, -1)):
        leg = turn_y(way * stride + np.pi)
        solids.append(post((0, side * 0.1 * k, hip), hip / np.cos(stride), 0.085 * k, PEDESTRIAN,
                           trousers, top_radius=0.06 * k, rotation=leg))  # fmt: skip
        arm = turn_y(-way * swing + np.pi)
        solids.append(post((0, side * (broad + 0.03), 1.42 * k), 0.62 * k, 0.05 * k, PEDESTRIAN,
                           coat, rotation=arm))  # fmt: skip
    extra = rng.random()
    if extra < 0.2:
        solids.append(box((-0.22 * k, 0, 1.22 * k), (0.18, 0.3, 0.42), PEDESTRIAN, 0.2))
    elif extra < 0.3:
        solids.append(box((0.05, broad + 0.12, 0.55), (0.3, 0.12, 0.32), PEDESTRIAN, 0.25))
    return solids


def cone(rng: np.random.Generator) -> list[Solid]:
    """A traffic cone, 0.6 to 1.0 m tall, with or without a fresh reflective sleeve."""
    height = rng.uniform(0.6, 1.0)
    foot = 0.3 * height
    sleeve = rng.uniform(0.25, 0.9)
    return [
        box((0, 0, 0.025), (2.1 * foot, 2.1 * foot, 0.05), CONE, 0.15),
        post((0, 0, 0.05), 0.55 * height, foot * 0.8, CONE, 0.35, top_radius=foot * 0.42),
        post((0, 0, 0.05 + 0.55 * height), 0.4 * height, foot * 0.42, CONE, sleeve,
             top_radius=foot * 0.12),
    ]  # fmt: skip
