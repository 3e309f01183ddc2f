"""What stands still in a street: buildings, fences, plants, poles, signs and clutter."""

import numpy as np

from .classes import BUILDING, CLUTTER, FENCE, POLE, SIGN, TRUNK, VEGETATION
from .solids import (
    FACADE,
    FOLIAGE,
    GLASS,
    MESH,
    SLATS,
    Solid,
    ball,
    box,
    disc,
    post,
    turn_x,
    turn_y,
)


def leaves(path: float) -> dict:
    """Skin of foliage in which a ray goes ``path`` metres on average."""
    return {"skin": FOLIAGE, "skin_values": (path,)}


def building(rng: np.random.Generator, length: float, depth: float, house: bool) -> list[Solid]:
    """A house with a gable roof or a flat-roofed block; its facades look along -y and y."""
    tone = rng.uniform(0.15, 0.6)
    storey = rng.uniform(2.7, 3.4)
    height = storey * (rng.integers(1, 3) if house else rng.integers(2, 7)) + rng.uniform(0.2, 0.8)
    pitch = rng.uniform(1.6, 3.4)
    # pitch, window width, storey, window height, recess
    values = (pitch, rng.uniform(0.35, 0.7) * pitch, storey, rng.uniform(0.4, 0.62) * storey,
              rng.uniform(0.1, 0.3))  # fmt: skip
    wall = {"skin": FACADE, "skin_values": values}
    sunk = 1.5  # foundations, so that no gap opens on a slope
    solids = [
        box((0, 0, height / 2), (length, depth, height), BUILDING, tone, **wall),
        box(
            (0, 0, -sunk / 2 + 0.2), (length + 0.12, depth + 0.12, sunk + 0.4), BUILDING, 0.8 * tone
        ),
    ]
    if house:
        rise = rng.uniform(0.25, 0.5) * depth
        eaves = 0.5
        roof = box((0, 0, height + rise / 2), (length + 0.3, depth + 2 * eaves, rise), BUILDING,
                   rng.uniform(0.1, 0.4), top=(length + 0.3, 0.2))  # fmt: skip
        solids.append(roof)
        if rng.random() < 0.5:
            chimney = (rng.uniform(-0.3, 0.3) * length, 0, height + rise)
            solids.append(box(chimney, (0.6, 0.6, 1.6), BUILDING, 0.3))
    else:
        solids.append(
            box((0, 0, height + 0.15), (length + 0.5, depth + 0.5, 0.4), BUILDING, 0.9 * tone)
        )
    relief = rng.choice(4)
    count = max(int(length / pitch) // 2, 1)
    for face in (-1, 1):
        y = face * depth / 2
        for slot in range(count):
            x = (slot - (count - 1) / 2) * 2 * pitch
            if relief == 0 and not house:  # balconies
                for z in np.arange(storey, height - 1, storey):
                    solids.append(
                        box((x, y + face * 0.6, z + 0.5), (0.9 * pitch, 1.2, 1.0), BUILDING, tone)
                    )
            elif relief == 1:  # pilasters
                solids.append(
                    box((x + pitch / 2, y, height / 2), (0.4, 0.5, height), BUILDING, 0.9 * tone)
                )
            elif relief == 2 and slot % 2 == 0:  # bays
                solids.append(
                    box(
                        (x, y + face * 0.3, height * 0.45), (1.6, 1.0, height * 0.9), BUILDING, tone
                    )
                )
        solids.append(  # a porch or an awning
            box(
                (rng.uniform(-0.3, 0.3) * length, y + face * 0.6, 2.6),
                (1.8, 1.2, 0.15),
                BUILDING,
                0.3,
            )
        )
    return solids


def garage(rng: np.random.Generator) -> list[Solid]:
    """A flat garage or kiosk, as tall as a truck."""
    size = (rng.uniform(3, 7), rng.uniform(3, 6), rng.uniform(2.4, 3.4))
    tone = rng.uniform(0.15, 0.6)
    return [
        box((0, 0, size[2] / 2 - 0.4), (size[0], size[1], size[2] + 0.8), BUILDING, tone),
        box((0, 0, size[2]), (size[0] + 0.5, size[1] + 0.5, 0.22), BUILDING, tone),
    ]


def fence_panel(length: float, height: float, style: str, tone: float) -> list[Solid]:
    """A stretch of fence along x: "slats", "mesh" or a solid garden "wall"."""
    if style == "wall":
        return [
            box((0, 0, height / 2 - 0.3), (length, 0.24, height + 0.6), FENCE, tone),
            box((0, 0, height), (length, 0.36, 0.1), FENCE, tone),
        ]
    skin = {"slats": (SLATS, (0.16, 0.1, 0.1)), "mesh": (MESH, (0.42,))}[style]
    return [
        box((0, 0, height / 2), (length, 0.05, height - 0.1), FENCE, tone,
            skin=skin[0], skin_values=skin[1]),
        post((-length / 2, 0, -0.3), height + 0.35, 0.06, FENCE, tone),
    ]  # fmt: skip


def hedge(rng: np.random.Generator, length: float, height: float) -> list[Solid]:
    """A clipped hedge along x, from knee to head height."""
    width = rng.uniform(0.6, 1.1)
    return [
        box((0, 0, height / 2 - 0.1), (length, width, height + 0.2), VEGETATION,
            rng.uniform(0.2, 0.5), top=(length, 0.8 * width), **leaves(0.16)),
        ball((rng.uniform(-0.3, 0.3) * length, 0, height), (length * 0.25, width * 0.5, 0.25),
             VEGETATION, 0.35, **leaves(0.2)),
    ]  # fmt: skip


def bush(rng: np.random.Generator) -> list[Solid]:
    """A few loose balls of leaves, as low as a car."""
    size, tone = rng.uniform(0.5, 1.1), rng.uniform(0.2, 0.5)
    solids = []
    for _ in range(rng.integers(2, 5)):
        x, y = rng.normal(0, 0.5 * size, 2)
        axes = size * rng.uniform(0.6, 1.0, 3)
        solids.append(ball((x, y, 0.8 * axes[2]), axes, VEGETATION, tone, **leaves(0.35)))
    return solids


def tree(rng: np.random.Generator) -> list[Solid]:
    """A broad-leaved tree with a bare trunk, or a conifer."""
    tone = rng.uniform(0.2, 0.5)
    lean = turn_x(rng.normal(0, 0.05)) @ turn_y(rng.normal(0, 0.05))
    if rng.random() < 0.2:
        height, foot = rng.uniform(5, 11), rng.uniform(0.6, 1.4)
        radius = max(rng.uniform(0.16, 0.26) * height, 0.9)
        return [
            post((0, 0, -0.2), foot + 1.2, rng.uniform(0.14, 0.24), TRUNK, 0.25, rotation=lean),
            post((0, 0, foot), height, radius, VEGETATION, tone, top_radius=0.1, **leaves(0.4)),
        ]
    trunk, radius = rng.uniform(2.0, 3.8), rng.uniform(0.13, 0.32)
    crown = rng.uniform(1.4, 2.8)
    solids = [
        post((0, 0, -0.2), trunk + 0.4 + 0.5 * crown, radius, TRUNK, rng.uniform(0.15, 0.4),
             top_radius=0.7 * radius, rotation=lean)
    ]  # fmt: skip
    top = lean[:, 2] * trunk
    for _ in range(rng.integers(2, 4)):  # boughs
        bough = turn_x(rng.uniform(-0.6, 0.6)) @ turn_y(rng.uniform(-0.6, 0.6))
        foot = top + np.array([0, 0, -0.3])
        solids.append(post(foot, crown, 0.45 * radius, TRUNK, 0.25, rotation=bough))
    for _ in range(rng.integers(4, 8)):
        x, y = top[:2] + rng.normal(0, 0.45 * crown, 2)
        z = top[2] + crown * rng.uniform(0.5, 1.5)
        axes = crown * rng.uniform(0.4, 0.75, 3)
        solids.append(ball((x, y, z), axes, VEGETATION, tone, **leaves(rng.uniform(0.6, 1.2))))
    return solids


def lamp(rng: np.random.Generator) -> list[Solid]:
    """A street lamp; its arm points along y."""
    height, arm, tone = rng.uniform(5, 9), rng.uniform(0.6, 2.2), rng.uniform(0.2, 0.6)
    return [
        post((0, 0, -0.2), height, rng.uniform(0.08, 0.13), POLE, tone, top_radius=0.06),
        box((0, arm / 2, height - 0.25), (0.1, arm, 0.1), POLE, tone),
        box((0, arm, height - 0.3), (0.3, 0.7, 0.14), POLE, tone),
    ]


def wooden_pole(rng: np.random.Generator) -> list[Solid]:
    """A telegraph pole with a cross arm, as thick as a young trunk."""
    height = rng.uniform(6, 9)
    tilt = turn_x(rng.normal(0, 0.02))
    return [
        post((0, 0, -0.2), height, rng.uniform(0.1, 0.16), POLE, 0.25, rotation=tilt),
        box((0, 0, height - 0.9), (0.12, 1.6, 0.12), POLE, 0.25),
    ]


def traffic_light(rng: np.random.Generator) -> list[Solid]:
    """A signal post with its lantern box facing -x."""
    height, tone = rng.uniform(3.0, 3.8), rng.uniform(0.1, 0.5)
    return [
        post((0, 0, -0.1), height, 0.08, POLE, tone),
        box((-0.18, 0, height - 0.5), (0.3, 0.36, 1.0), POLE, 0.12),
    ]


def sign(rng: np.random.Generator) -> list[Solid]:
    """A traffic sign facing -x on its post, or a direction board on two posts."""
    face = rng.uniform(0.25, 1.0)  # retroreflective film when new, dull when old
    if rng.random() < 0.22:
        wide, tall, low = rng.uniform(1.4, 2.4), rng.uniform(0.8, 1.3), rng.uniform(1.4, 2.2)
        solids = [box((-0.06, 0, low + tall / 2), (0.05, wide, tall), SIGN, face)]
        return solids + [
            post((0.04, side * 0.35 * wide, -0.1), low + tall, 0.05, POLE, 0.3) for side in (-1, 1)
        ]
    size, height = rng.uniform(0.6, 0.95), rng.uniform(2.3, 3.0)
    plate = (-0.07, 0, height - size / 2)
    shape = rng.choice(3)
    if shape == 0:
        solids = [disc(plate, size / 2, 0.04, "x", SIGN, face)]
    elif shape == 1:
        solids = [box(plate, (0.04, size, size), SIGN, face)]
    else:
        solids = [box(plate, (0.04, size * 1.1, size), SIGN, face, top=(0.04, 0.1))]
    if rng.random() < 0.3:
        below = (-0.07, 0, height - size - 0.25)
        solids.append(box(below, (0.04, 0.6, 0.35), SIGN, face))
    return [*solids, post((0, 0, -0.1), height + 0.15, 0.045, POLE, 0.35)]


def clutter(rng: np.random.Generator) -> list[Solid]:
    """Something that resembles another class without being it."""
    tone = rng.uniform(0.08, 0.65)
    kind = rng.choice(8, p=[0.22, 0.14, 0.1, 0.12, 0.14, 0.1, 0.1, 0.08])
    if kind == 0:  # wheeled bins
        solids = []
        for slot in range(rng.integers(1, 4)):
            y = slot * 0.75
            solids.append(
                box((0, y, 0.5), (0.55, 0.5, 1.0), CLUTTER, tone, top=(0.72, 0.6), shift=0.05)
            )
            solids.append(box((0.03, y, 1.04), (0.8, 0.62, 0.1), CLUTTER, tone))
        return solids
    if kind == 1:  # a skip, as long as a small car
        return [
            box((0, 0, 0.7), (2.0, 1.6, 1.4), CLUTTER, tone, top=(3.4, 1.7)),
            ball((0, 0, 1.35), (1.2, 0.7, rng.uniform(0.1, 0.5)), CLUTTER, 0.3),
        ]
    if kind == 2:  # a bus shelter
        glass = {"skin": GLASS, "skin_values": (0.5,)}
        return [
            box((0, 0, 2.45), (3.6, 1.5, 0.14), CLUTTER, tone),
            box((0, 0.65, 1.3), (3.4, 0.06, 2.0), CLUTTER, 0.2, **glass),
            box((-1.7, 0.3, 1.3), (0.06, 0.8, 2.2), CLUTTER, 0.2, **glass),
            box((0.3, 0.4, 0.45), (1.8, 0.4, 0.08), CLUTTER, tone),
        ]
    if kind == 3:  # an advertising column
        radius, height = rng.uniform(0.45, 0.7), rng.uniform(2.4, 3.4)
        return [
            post((0, 0, -0.1), height, radius, CLUTTER, tone),
            post((0, 0, height - 0.1), 0.25, 1.15 * radius, CLUTTER, tone),
        ]
    if kind == 4:  # a row of bollards
        height, radius = rng.uniform(0.7, 1.0), rng.uniform(0.09, 0.14)
        return [post((1.4 * i, 0, -0.1), height, radius, CLUTTER, tone)
                for i in range(rng.integers(2, 6))]  # fmt: skip
    if kind == 5:  # a bench
        legs = [box((x, 0, 0.22), (0.12, 0.4, 0.44), CLUTTER, tone) for x in (-0.7, 0.7)]
        seat = box((0, 0, 0.46), (1.8, 0.45, 0.09), CLUTTER, tone)
        return [*legs, seat, box((0, 0.22, 0.72), (1.8, 0.09, 0.34), CLUTTER, tone)]
    if kind == 6:  # a switch cabinet
        lengths = (rng.uniform(0.7, 1.8), rng.uniform(0.35, 0.5), rng.uniform(0.9, 1.5))
        return [
            box((0, 0, lengths[2] / 2), lengths, CLUTTER, tone),
            box((0, 0, lengths[2]), (lengths[0] + 0.1, lengths[1] + 0.1, 0.08), CLUTTER, tone),
        ]
    # a pile of boxes and boards
    solids = [box((0, 0, 0.15), (1.2, 1.0, 0.3), CLUTTER, 0.25)]
    for _ in range(rng.integers(1, 4)):
        x, y = rng.uniform(-0.3, 0.3, 2)
        tall = rng.uniform(0.3, 0.9)
        solids.append(box((x, y, 0.3 + tall / 2), (*rng.uniform(0.4, 0.8, 2), tall), CLUTTER, tone))
    return solids
