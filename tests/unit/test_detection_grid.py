"""The anchored grid and the map from above, against loops in float64."""

import math
from fractions import Fraction

import pytest
import torch

from dos_plugin.detection.bev import to_bev
from dos_plugin.detection.grid import DetectionGrid, voxelize

RANGE = (-3.2, -1.6, -0.8, 3.2, 1.6, 0.8)


def grid(**changes):
    options = dict(point_cloud_range=RANGE, grid_size=0.1, stride=4)
    return DetectionGrid(**{**options, **changes})


def points(n=3000, seed=0, spread=4.0):
    generator = torch.Generator().manual_seed(seed)
    return spread * (2 * torch.rand(n, 5, generator=generator) - 1)


def cell_by_hand(point, grid):
    """Exact: the decimal numbers of the config, and the float of the point as it is."""
    low = [Fraction(str(v)) for v in grid.point_cloud_range[:3]]
    size = Fraction(str(grid.grid_size))
    cell = [math.floor((Fraction(float(v)) - a) / size) for v, a in zip(point, low)]
    shape = grid.shape
    return tuple(cell) if all(0 <= c < s for c, s in zip(cell, shape)) else None


def test_shapes():
    assert grid().shape == (64, 32, 16)
    assert grid().bev_shape == (4, 8, 16)
    assert grid(z_bins=2).bev_shape == (2, 8, 16)
    stock = DetectionGrid((-54, -54, -5, 54, 54, 3), 0.05, 8)
    assert stock.shape == (2160, 2160, 160) and stock.bev_shape == (20, 270, 270)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(point_cloud_range=(-3.2, -1.5, -0.8, 3.2, 1.6, 0.8)),
            r"point_cloud_range: y from -1.5 to 1.6 m holds 7.7500 cells of grid_size \* stride = "
            r"0.1 \* 4 = 0.4 m, expected a whole number",
        ),
        (dict(grid_size=0.075), r"point_cloud_range: x .* 21.3333 cells .* 0.075 \* 4"),
        (dict(stride=64), "point_cloud_range: y .* 0.5000 cells"),
        (dict(z_bins=3), "z_bins: 3 does not divide the 4 cells of 0.4 m"),
        (dict(point_cloud_range=(0, 0, 0, 1, 1)), "lower and then of the upper corner .* got"),
        (dict(point_cloud_range=(3, 0, 0, 1, 1, 1)), "lower and then of the upper corner"),
        (dict(grid_size=0), "grid_size and stride: .* got 0 and 4"),
        (dict(stride=0), "grid_size and stride: .* got 0.1 and 0"),
    ],
)
def test_wrong_grid(changes, message):
    with pytest.raises(ValueError, match=message):
        grid(**changes)


def test_cells_are_exact():
    cloud = points()
    cells, inside = grid().cells(cloud[:, :3])
    for row, cell, there in zip(cloud, cells.tolist(), inside.tolist()):
        expected = cell_by_hand(row[:3], grid())
        assert there == (expected is not None) and (not there or tuple(cell) == expected)
    assert 0 < inside.sum() < len(cloud)


def test_faces_of_the_range():
    """The lower face is in, the upper one is out, in float32 too; so are NaN and infinity."""
    low, high = torch.tensor([-4.0, -2.0, -1.0]), torch.tensor([4.0, 2.0, 1.0])
    below = torch.nextafter(high, low)
    rows = torch.stack([low, below, high, torch.full((3,), math.nan), torch.full((3,), math.inf)])
    corners = (*low.tolist(), *high.tolist())
    cells, inside = grid(point_cloud_range=corners, grid_size=0.125).cells(rows)
    assert inside.tolist() == [True, True, False, False, False]
    assert cells[0].tolist() == [0, 0, 0] and cells[1].tolist() == [63, 31, 15]


def test_pooled_voxels_are_cells_of_the_map():
    cloud = points()
    fine, inside = grid().cells(cloud[:, :3])
    coarse, also = grid(grid_size=0.4, stride=1).cells(cloud[:, :3])
    assert torch.equal(inside, also)
    assert torch.equal(fine[inside] // 4, coarse[inside])


@pytest.mark.parametrize("merge", ["first", "mean"])
def test_voxels_against_a_dictionary(merge):
    cloud = points(6000, spread=3.3)
    found = voxelize(cloud, grid(grid_size=0.4, stride=1), merge)
    members: dict[tuple, list] = {}
    dropped = 0
    for row in cloud:
        cell = cell_by_hand(row[:3], grid(grid_size=0.4, stride=1))
        if cell is None:
            dropped += 1
        else:
            members.setdefault(cell, []).append(row)
    assert max(map(len, members.values())) > 3
    assert found.dropped.item() == dropped > 0
    assert [tuple(cell) for cell in found.cells.tolist()] == sorted(members)
    for row, cell in zip(found.points, sorted(members)):
        rows = torch.stack(members[cell])
        expected = rows[0] if merge == "first" else rows.double().mean(0).float()
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-6 if merge == "mean" else 0)


def test_voxels_do_not_depend_on_other_points():
    cloud = points(500)
    once, again = voxelize(cloud, grid()), voxelize(cloud.clone(), grid())
    assert all(torch.equal(a, b) for a, b in zip(once, again))
    moved = torch.cat([cloud, points(400, seed=1) + 100])  # far away, nothing inside
    after = voxelize(moved, grid())
    assert torch.equal(once.points, after.points) and after.dropped == once.dropped + 400
    none = voxelize(points(50) + 100, grid())
    assert none.points.shape == (0, 5) and none.cells.shape == (0, 3) and none.dropped == 50
    with pytest.raises(ValueError, match="merge: expected one of .* got 'last'"):
        voxelize(cloud, grid(), "last")


def scattered(seed=0, rows=60):
    generator = torch.Generator().manual_seed(seed)
    shape = (4, 5, 6)  # z, y, x
    draws = [torch.randint(0, n, (rows,), generator=generator) for n in (6, 5, 4, 3)]
    feat = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    return feat, torch.stack(draws[:3], dim=1), draws[3], shape


def bev_by_loop(feat, cells, batch, batch_size, shape, bins, reduce):
    depth, height, width = shape
    places: dict[tuple, list] = {}
    for row, (x, y, z), b in zip(feat, cells.tolist(), batch.tolist()):
        places.setdefault((b, z // (depth // bins), y, x), []).append(row)
    out = feat.new_zeros(batch_size, feat.shape[1], bins, height, width)
    for (b, z, y, x), rows in places.items():
        stacked = torch.stack(rows)
        out[b, :, z, y, x] = stacked.mean(0) if reduce == "mean" else stacked.amax(0)
    assert max(map(len, places.values())) > 1
    return out.reshape(batch_size, -1, height, width)


@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize("bins", [None, 4, 2, 1])
def test_map_and_gradient_against_a_loop(reduce, bins):
    feat, cells, batch, shape = scattered()
    feat = torch.cat([feat, feat[:9] + 1])  # rows that share a place
    cells, batch = torch.cat([cells, cells[:9]]), torch.cat([batch, batch[:9]])
    mine, reference = feat.clone().requires_grad_(), feat.clone().requires_grad_()
    out = to_bev(mine, cells, batch, 4, shape, bins, reduce)
    expected = bev_by_loop(reference, cells, batch, 4, shape, bins or 4, reduce)
    assert out.shape == (4, 3 * (bins or 4), 5, 6)
    torch.testing.assert_close(out, expected)
    assert not out[3].any()
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(mine.grad, reference.grad)
    assert reduce == "max" or mine.grad.abs().sum(1).min() > 0


def test_map_refuses_what_would_wrap_around():
    feat, cells, batch, shape = scattered()
    cells[7, 0] = 6
    message = r"1 rows lie outside a map of 6 x 5 x 4 cells \(x, y, z\) and 3 scans, .* \[6, "
    with pytest.raises(ValueError, match=message):
        to_bev(feat, cells, batch, 3, shape)
    cells[7, 0] = 5
    with pytest.raises(ValueError, match="and 2 scans"):
        to_bev(feat, cells, batch, 2, shape)
    with pytest.raises(ValueError, match="reduce: expected one of .* got 'sum'"):
        to_bev(feat, cells, batch, 3, shape, reduce="sum")
