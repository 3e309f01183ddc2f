"""What a point of a synthetic street can be: names, colours, countable classes."""

CLASS_NAMES: tuple[str, ...] = (
    "road",
    "sidewalk",
    "terrain",
    "building",
    "fence",
    "vegetation",
    "trunk",
    "pole",
    "traffic sign",
    "car",
    "truck",
    "bicycle",
    "pedestrian",
    "cone",
    "clutter",
)
"""Class of each label. ``clutter`` holds everything that resembles another class without being it:
bins, cabinets, bollards, advertising columns, bus shelters, benches, skips, boxes, planters."""

(
    ROAD,
    SIDEWALK,
    TERRAIN,
    BUILDING,
    FENCE,
    VEGETATION,
    TRUNK,
    POLE,
    SIGN,
    CAR,
    TRUCK,
    BICYCLE,
    PEDESTRIAN,
    CONE,
    CLUTTER,
) = range(len(CLASS_NAMES))

IGNORE = -1
"""Label of returns that belong to no object: a beam that straddles an edge gives a point in the
air between the two surfaces."""

THINGS: tuple[int, ...] = (CAR, TRUCK, BICYCLE, PEDESTRIAN, CONE)
"""Classes with instances and boxes; all the others are stuff."""

PALETTE: tuple[tuple[int, int, int], ...] = (
    (128, 96, 144),
    (222, 130, 205),
    (146, 190, 96),
    (232, 190, 120),
    (190, 120, 70),
    (52, 152, 72),
    (150, 92, 48),
    (240, 240, 160),
    (255, 64, 48),
    (84, 150, 255),
    (64, 80, 225),
    (80, 235, 235),
    (255, 120, 150),
    (255, 150, 0),
    (160, 160, 168),
)
"""Colour (red, green, blue, 0 to 255) of each class."""
