"""Synthetic streets: geometry against plain references, and statistics of the scans."""

import numpy as np
import pytest
import torch

from dos_plugin.scenes import (
    CLASS_NAMES,
    IGNORE,
    THINGS,
    Sensor,
    generate_scan,
    write_scenes,
)
from dos_plugin.scenes.classes import BUILDING, CAR, FENCE, ROAD, VEGETATION
from dos_plugin.scenes.ground import Ground, Side, Street, Waves
from dos_plugin.scenes.layout import Scene, draw_ground
from dos_plugin.scenes.raycast import candidates, cast
from dos_plugin.scenes.sensor import NOISE_CUT, scan
from dos_plugin.scenes.solids import (
    BALL,
    BOX,
    FACADE,
    FOLIAGE,
    MESH,
    SLATS,
    ball,
    box,
    disc,
    pack,
    placed,
    post,
    turn_x,
    turn_y,
    turn_z,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Nine scans on disk, six to train and three to validate."""
    root = tmp_path_factory.mktemp("streets")
    write_scenes(root, {"train": 6, "val": 3}, seed=1, workers=1, progress=False)
    return root


def load(root, split, name):
    return [np.load(folder / f"{name}.npy") for folder in sorted((root / split).iterdir())]


def flat_ground(height=0.0):
    """A level road of great width; its kerb is out of sight."""
    none = np.zeros(0)
    waves = Waves(none, none, none, none)
    side = Side(0.0, 0.0, ROAD, 0.0, 1.0)
    street = Street((0.0, 0.0), 0.0, 0.0, 1e4)
    return Ground((street,), side, side, 0.0, (0.0, 0.0), waves, waves)


def scene_of(solids, things=None, classes=(), headings=()):
    things = [-1] * len(solids) if things is None else things
    origin = np.array([0, 0, 1.8])
    return Scene(
        flat_ground(), pack(solids, things), list(classes), list(headings), origin, np.eye(3)
    )


QUIET = Sensor(columns=720, noise=0.0, lost=0.0, edges=0.0)


# --- geometry ------------------------------------------------------------------------------------


def random_solids(rng, count):
    """Solids of all kinds, turned at random, around the origin but not on it."""
    solids = []
    for number in range(count):
        distance, azimuth = rng.uniform(4, 20), rng.uniform(0, 2 * np.pi)
        spot = np.array(
            [distance * np.cos(azimuth), distance * np.sin(azimuth), rng.uniform(-3, 2)]
        )
        lengths = rng.uniform(0.5, 4, 3)
        one = (
            box((0, 0, 0), lengths, BUILDING, 0.3),
            box((0, 0, 0), lengths, CAR, 0.3, top=0.5 * lengths[:2], shift=0.2),
            post((0, 0, 0), lengths[2], 0.6, FENCE, 0.3, top_radius=0.1),
            disc((0, 0, 0), 0.8, 0.4, "y", FENCE, 0.3),
            ball((0, 0, 0), lengths / 2, VEGETATION, 0.3),
        )[number % 5]
        turn = turn_z(rng.uniform(0, 6)) @ turn_x(rng.normal(0, 0.3)) @ turn_y(rng.normal(0, 0.3))
        solids += placed([one], turn, spot)
    return solids


def inside(solid, points):
    """Whether points (N, 3) lie in a solid, straight from its definition."""
    p = (points - np.array(solid.centre)) @ solid.rotation
    if solid.kind == BALL:
        return ((p / np.array(solid.size)) ** 2).sum(1) <= 1
    hz = solid.size[2]
    share = (p[:, 2] + hz) / (2 * hz)
    if solid.kind == BOX:
        bx, by, _, tx, ty, shift = solid.size
        wide = np.abs(p[:, 0] - share * shift) <= bx + share * (tx - bx)
        wide &= np.abs(p[:, 1]) <= by + share * (ty - by)
    else:
        low, high, _ = solid.size
        wide = np.hypot(p[:, 0], p[:, 1]) <= low + share * (high - low)
    return wide & (np.abs(p[:, 2]) <= hz)


def grid_of_rays(columns):
    elevations = Sensor().elevations()
    azimuth = 2 * np.pi * np.arange(columns) / columns
    e, a = (v.ravel() for v in np.meshgrid(elevations, azimuth, indexing="ij"))
    rays = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=1)
    return elevations, rays


def test_cast_agrees_with_walking_along_every_ray():
    rng = np.random.default_rng(3)
    solids = random_solids(rng, 25)
    scenery, origin, pose = pack(solids, [-1] * 25), np.array([0.3, -0.2, 0.4]), turn_z(0.7)
    columns = 90
    elevations, rays = grid_of_rays(columns)
    world = rays @ pose.T
    pairs = candidates(scenery, pose, origin, elevations, columns)
    hits = cast(scenery, world, origin, pairs, rng)

    step = 0.02
    walked, first = np.full(len(rays), np.inf), np.full(len(rays), -1)
    distances = np.arange(step, 26, step)
    for ray in range(0, len(rays), 7):
        points = origin + distances[:, None] * world[ray]
        for number, solid in enumerate(solids):
            met = np.flatnonzero(inside(solid, points))
            if len(met) and distances[met[0]] < walked[ray]:
                walked[ray], first[ray] = distances[met[0]], number
    some = np.arange(0, len(rays), 7)
    both = np.isfinite(walked[some]) & np.isfinite(hits.distance[some])
    assert both.sum() > 50
    # Rays that graze a corner fall between two steps; nothing else may differ.
    differ = np.abs(walked[some[both]] - hits.distance[some[both]]) > 1.5 * step
    differ |= first[some[both]] != hits.solid[some[both]]
    assert differ.mean() < 0.02
    assert not (np.isfinite(walked[some]) & ~np.isfinite(hits.distance[some])).any()
    assert (np.isfinite(hits.distance[some]) & ~both).mean() < 0.02


def test_windows_of_rays_lose_no_hit():
    rng = np.random.default_rng(4)
    solids = random_solids(rng, 60)
    scenery, origin = pack(solids, [-1] * 60), np.zeros(3)
    pose = turn_z(2.0) @ turn_x(0.05) @ turn_y(-0.04)
    columns = 120
    elevations, rays = grid_of_rays(columns)
    world = rays @ pose.T
    pairs = candidates(scenery, pose, origin, elevations, columns)
    every = np.repeat(np.arange(len(rays)), 60), np.tile(np.arange(60), len(rays))
    assert len(pairs[0]) < 0.2 * len(every[0])
    culled, full = (
        cast(scenery, world, origin, p, np.random.default_rng(0)) for p in (pairs, every)
    )
    assert np.array_equal(culled.solid, full.solid)
    assert np.array_equal(culled.distance, full.distance)


def test_nothing_behind_a_wall_is_seen():
    wall = box((10, 0, 2), (0.3, 60, 40), BUILDING, 0.4)
    hidden = box((15, 2, 0.8), (4, 1.8, 1.6), CAR, 0.4)
    seen = box((6, 2, 0.8), (4, 1.8, 1.6), CAR, 0.4)
    scene = scene_of([wall, hidden, seen], [-1, 0, 1], [CAR, CAR], [0.0, 0.0])
    result = scan(scene, QUIET, np.random.default_rng(0))
    x, y = result["coord"][:, 0], result["coord"][:, 1]
    before = np.abs(y) < 25
    assert before.sum() > 1000
    assert x[before].max() < 10.2
    assert len(result["boxes"]) == 1  # the hidden car has no return and no box
    np.testing.assert_allclose(result["boxes"][0, :7], [6, 2, -1, 4, 1.8, 1.6, 0], atol=1e-5)


def test_a_wall_casts_its_shadow_on_the_ground():
    wall = box((8, 0, 1.5), (0.2, 4, 3.2), BUILDING, 0.4)
    result = scan(scene_of([wall]), QUIET, np.random.default_rng(0))
    ground = result["segment"] == ROAD
    x, y = result["coord"][ground, 0], result["coord"][ground, 1]
    assert not ((x > 8.1) & (np.abs(y / x) < 1.9 / 8)).any()
    assert ((x > 8.1) & (np.abs(y / x) > 2.2 / 8)).any()
    np.testing.assert_allclose(result["coord"][ground, 2], -1.8, atol=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_rays_end_on_the_ground(seed):
    rng = np.random.default_rng(seed)
    ground, _ = draw_ground(rng)
    here = np.zeros(1)
    origin = np.array([0, 0, ground.height(here, here)[0] + 1.8])
    _, rays = grid_of_rays(100)
    distance = ground.meet(origin, rays, 70.0)
    hit = np.isfinite(distance)
    assert hit[rays[:, 2] < -0.2].all() and not hit[rays[:, 2] > 0.15].any()
    x, y, z = (origin + distance[hit, None] * rays[hit]).T
    gap = np.abs(z - ground.height(x, y))
    assert np.percentile(gap, 98) < 0.02  # the rest are faces of kerbs
    assert gap.max() < ground.kerb + 0.05
    # Nothing earlier on the way lies below the ground by more than a kerb's edge.
    for share in np.linspace(0.05, 0.98, 40):
        x, y, z = (origin + share * distance[hit, None] * rays[hit]).T
        assert (z - ground.height(x, y)).min() > -0.06


def test_distance_from_a_curved_street():
    street = Street((3.0, -2.0), 0.4, 0.006, 8.0)
    for along, across in [(0, 3), (40, -6), (-35, 12), (60, 2)]:
        x, y, heading = street.pose(along, across)
        u, v = street.coordinates(np.array([x]), np.array([y]))
        assert abs(u[0] - along) < 0.05 and abs(v[0] - across) < 0.02
        ahead = street.pose(along + 0.01, across)
        assert abs(np.arctan2(ahead[1] - y, ahead[0] - x) - heading) < 0.01


# --- skins ---------------------------------------------------------------------------------------


def shots(solid, count=4000):
    """Distances from x = 0 of rays along x, and where (y, z) they meet a solid at (10, 0, 0)."""
    rng = np.random.default_rng(0)
    spots = rng.uniform(-0.9, 0.9, (count, 2))
    away = 1e6  # all rays start at one point; from far away they are parallel
    rays = np.column_stack([np.full(count, away), spots])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    pairs = np.arange(count), np.zeros(count, np.int64)
    hits = cast(pack([solid], [-1]), rays, np.array([-away, 0, 0]), pairs, rng)
    return hits.distance - away, spots


def test_foliage_stops_rays_at_several_depths():
    solid = box((10, 0, 0), (2, 2, 2), VEGETATION, 0.3, skin=FOLIAGE, skin_values=(1.0,))
    distance, _ = shots(solid)
    assert abs(np.isinf(distance).mean() - np.exp(-2)) < 0.03
    met = distance[np.isfinite(distance)]
    assert met.min() < 9.1 and 10.8 < met.max() < 11
    assert abs(np.median(met - 9) + np.log1p(-0.5 * (1 - np.exp(-2)))) < 0.06


def test_fences_let_rays_through():
    mesh = box((10, 0, 0), (0.05, 2, 2), FENCE, 0.3, skin=MESH, skin_values=(0.42,))
    assert abs(np.isfinite(shots(mesh)[0]).mean() - 0.42) < 0.03
    slats = box((10, 0, 0), (2, 0.05, 2), FENCE, 0.3, skin=SLATS, skin_values=(0.2, 0.1, 0.1))
    slats = placed([slats], turn_z(np.pi / 2), np.array([10.0, -10.0, 0]))[0]
    distance, starts = shots(slats)
    rail = np.abs(starts[:, 1]) > 0.9
    assert np.isfinite(distance[rail]).all()
    assert abs(np.isfinite(distance[~rail]).mean() - 0.5) < 0.04


def test_windows_are_recessed():
    values = (1.0, 0.5, 2.0, 1.0, 0.2)  # one window of 0.5 x 1.0 a metre, 0.2 deep
    solid = box((10, 0, 0), (2, 6, 2.6), BUILDING, 0.3, skin=FACADE, skin_values=values)
    distance, starts = shots(solid)
    in_window = (np.abs(starts[:, 0] % 1.0 - 0.5) < 0.25) & (np.abs(starts[:, 1] + 0.2) < 0.5)
    np.testing.assert_allclose(distance[in_window], 9.2, atol=1e-4)
    np.testing.assert_allclose(distance[~in_window], 9.0, atol=1e-4)


# --- scans ---------------------------------------------------------------------------------------


def test_same_seed_same_scan():
    one, two, other = generate_scan(5), generate_scan(5), generate_scan(6)
    for key in one:
        assert np.array_equal(one[key], two[key]), key
    assert one["coord"].shape != other["coord"].shape or (one["coord"] != other["coord"]).any()


def test_range_noise_is_bounded():
    plain, noisy = (
        generate_scan(7, Sensor(noise=noise, edges=0.0, lost=0.0)) for noise in (0.0, 0.02)
    )
    ranges = [np.linalg.norm(s["coord"], axis=1) for s in (plain, noisy)]
    assert len(ranges[0]) == len(ranges[1])
    error = ranges[1] - ranges[0]
    assert np.abs(error).max() <= NOISE_CUT * 0.02 + 1e-4
    assert abs(error.std() - 0.02) < 0.002


@pytest.mark.parametrize("seed", range(3))
def test_boxes_hold_their_points(seed):
    sensor = Sensor()
    result = generate_scan(seed, sensor)
    coord, boxes = result["coord"], result["boxes"]
    assert len(boxes) > 3
    is_thing = np.isin(result["segment"], THINGS)
    assert np.array_equal(is_thing, result["instance"] >= 0)
    for number, (x, y, z, dx, dy, dz, yaw, label) in enumerate(boxes):
        mine = result["instance"] == number
        assert mine.any() and (result["segment"][mine] == label).all()
        c, s = np.cos(yaw), np.sin(yaw)
        local = (coord[mine] - [x, y, z]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        assert (np.abs(local) <= np.array([dx, dy, dz]) / 2 + NOISE_CUT * sensor.noise + 1e-3).all()
        if label == CAR:
            assert 3.4 < dx < 5.6 and 1.6 < dy < 2.5 and 1.3 < dz < 2.4


def test_types_shapes_and_ranges(root):
    for split, count in (("train", 6), ("val", 3)):
        folders = sorted((root / split).iterdir())
        assert [f.name for f in folders] == [f"scene-{i:05d}" for i in range(count)]
        for folder in folders:
            coord, strength, segment, instance, boxes = (
                np.load(folder / f"{n}.npy")
                for n in ("coord", "strength", "segment", "instance", "boxes")
            )
            n = len(coord)
            assert 24_000 < n < 35_000
            assert coord.shape == (n, 3) and coord.dtype == np.float32
            assert strength.shape == (n, 1) and strength.dtype == np.float32
            assert segment.shape == instance.shape == (n,)
            assert segment.dtype == instance.dtype == np.int32
            assert boxes.shape[1] == 8 and boxes.dtype == np.float32
            assert np.isfinite(coord).all() and strength.min() >= 0 and strength.max() <= 1
            distance = np.linalg.norm(coord, axis=1)
            assert distance.min() > 0.9 and distance.max() < Sensor().reach + 0.1
            assert segment.min() >= IGNORE and segment.max() < len(CLASS_NAMES)
            assert instance.max() == len(boxes) - 1


def test_classes_have_a_long_tail(root):
    segment = np.concatenate(load(root, "train", "segment"))
    share = np.bincount(segment[segment >= 0], minlength=len(CLASS_NAMES)) / len(segment)
    assert (share > 0).all(), "each class occurs"
    assert share.min() < 0.001
    assert share.max() > 0.15
    assert (segment == IGNORE).mean() < 0.02


def test_density_falls_with_range(root):
    coord = np.concatenate(load(root, "train", "coord"))
    distance = np.linalg.norm(coord[:, :2], axis=1)
    counts = np.histogram(distance, [5, 15, 25, 35, 45])[0]
    density = counts / np.array([15**2 - 5**2, 25**2 - 15**2, 35**2 - 25**2, 45**2 - 35**2])
    assert (np.diff(density) < 0).all()


@pytest.mark.parametrize("balanced", [False, True])
def test_raw_values_do_not_give_the_class_away(root, balanced):
    rows = {}
    for split in ("train", "val"):
        parts = [np.concatenate(load(root, split, n)) for n in ("coord", "strength")]
        segment = np.concatenate(load(root, split, "segment"))
        keep = segment >= 0
        rows[split] = np.concatenate(parts, axis=1)[keep][::8], segment[keep][::8].astype(np.int64)
    mean, std = rows["train"][0].mean(0), rows["train"][0].std(0)
    (x, y), (x_val, y_val) = (
        (torch.from_numpy((a - mean) / std), torch.from_numpy(b)) for a, b in rows.values()
    )
    torch.manual_seed(0)
    classes = len(CLASS_NAMES)
    probe = torch.nn.Linear(4, classes)
    count = torch.bincount(y, minlength=classes).clamp(min=1).float()
    weight = len(y) / count / classes if balanced else None
    optimizer = torch.optim.AdamW(probe.parameters(), lr=0.03)
    for _ in range(200):
        pick = torch.randint(len(x), (2048,))
        loss = torch.nn.functional.cross_entropy(probe(x[pick]), y[pick], weight=weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    guess = probe(x_val).argmax(1)
    table = torch.bincount(y_val * classes + guess, minlength=classes**2).reshape(classes, classes)
    hit = table.diag()
    iou = hit / (table.sum(0) + table.sum(1) - hit).clamp(min=1)
    assert hit.sum() / table.sum() > 0.25, "the probe has learnt something"
    assert iou.mean() < 0.25
