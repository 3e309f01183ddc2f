"""Points to rows and rows to rows, against loops and dictionaries."""

import pytest
import torch

from dos_plugin.method import find_points, match_rows, row_features, true_positions


class PointDict(dict):
    """Like the host's point structure: a dict whose keys are attributes too."""

    __getattr__ = dict.__getitem__


def make_hierarchy(seed: int, counts: list[int], channels: list[int]) -> list[PointDict]:
    """Levels from fine to coarse, each pooled from the one before; every coarse row is used."""
    generator = torch.Generator().manual_seed(seed)
    levels: list[PointDict] = []
    for n, c in zip(counts, channels):
        level = PointDict(feat=torch.randn(n, c, generator=generator))
        if levels:
            finer = len(levels[-1].feat)
            fill = torch.randint(max(1, n), (finer - n,), generator=generator)
            inverse = torch.cat([torch.arange(n), fill])
            level["pooling_inverse"] = inverse[torch.randperm(finer, generator=generator)]
            level["pooling_parent"] = levels[-1]
        levels.append(level)
    return levels


def row_by_loop(levels: list[PointDict], point: int, last: int) -> int:
    """Follow one point through the pooling steps up to level ``last``."""
    row = point
    for level in levels[1 : last + 1]:
        row = level["pooling_inverse"][row].item()
    return row


def feature_by_loop(levels: list[PointDict], row: int, first: int) -> list[float]:
    """Feature of a row of level ``first``, then of the coarser rows that hold it."""
    values = levels[first].feat[row].tolist()
    for level in levels[first + 1 :]:
        row = level["pooling_inverse"][row].item()
        values += level.feat[row].tolist()
    return values


HIERARCHIES = [
    # rows from fine to coarse, channels, up_cast_level, finest level that features end at
    ([40], [5], 0, 0),
    ([40], [5], -1, 0),
    ([40, 11], [5, 3], 0, 1),
    ([40, 11], [5, 3], 1, 0),
    ([40, 11], [5, 3], -1, 0),
    ([50, 20, 9], [2, 3, 4], 0, 2),
    ([50, 20, 9], [2, 3, 4], 1, 1),
    ([50, 20, 9], [2, 3, 4], -1, 0),
    ([60, 30, 12, 4], [2, 3, 4, 5], 0, 3),
    ([60, 30, 12, 4], [2, 3, 4, 5], 1, 2),
    ([60, 30, 12, 4], [2, 3, 4, 5], 2, 1),
    ([60, 30, 12, 4], [2, 3, 4, 5], 3, 0),
    ([60, 30, 12, 4], [2, 3, 4, 5], -1, 0),
    ([7, 7, 1], [2, 2, 2], 1, 1),  # a step that merges nothing, one that merges all
]


@pytest.mark.parametrize("counts, channels, up_cast_level, finest", HIERARCHIES)
def test_row_features_equals_loops(counts, channels, up_cast_level, finest):
    levels = make_hierarchy(0, counts, channels)
    feat, row_of_point = row_features(levels[-1], counts[0], up_cast_level)
    assert row_of_point.dtype == torch.int64
    assert row_of_point.tolist() == [row_by_loop(levels, i, finest) for i in range(counts[0])]
    expected = [feature_by_loop(levels, row, finest) for row in range(counts[finest])]
    assert torch.equal(feat, torch.tensor(expected))


def test_row_features_leaves_the_structure_alone():
    levels = make_hierarchy(1, [20, 8, 3], [2, 3, 4])
    before = [{key: value for key, value in level.items()} for level in levels]
    copies = [level.feat.clone() for level in levels]
    row_features(levels[-1], 20, 2)
    for level, old, copy in zip(levels, before, copies):
        assert level.keys() == old.keys() and all(level[key] is old[key] for key in old)
        assert torch.equal(level.feat, copy)


def test_up_casting_carries_gradients_to_every_level():
    levels = make_hierarchy(2, [20, 8, 3], [2, 3, 4])
    for level in levels:
        level["feat"].requires_grad_()
    row_features(levels[-1], 20, 2).feat.sum().backward()
    assert torch.equal(levels[0].feat.grad, torch.ones(20, 2))
    # A coarse row gets as much as it has points.
    for last in (1, 2):
        rows = torch.tensor([row_by_loop(levels, i, last) for i in range(20)])
        expected = rows.bincount().float()[:, None].expand_as(levels[last].feat)
        assert torch.equal(levels[last].feat.grad, expected)


@pytest.mark.parametrize("up_cast_level", [0, -1])
def test_tensor_output(up_cast_level):
    output = torch.randn(6, 3, generator=torch.Generator().manual_seed(3))
    feat, row_of_point = row_features(output, 6, up_cast_level)
    assert torch.equal(feat, output)
    assert row_of_point.tolist() == [0, 1, 2, 3, 4, 5]


def test_row_features_without_points():
    feat, row_of_point = row_features(make_hierarchy(4, [0, 0], [2, 3])[-1], 0, 1)
    assert feat.shape == (0, 5) and row_of_point.shape == (0,)


@pytest.mark.parametrize(
    "output, name",
    [(None, "NoneType"), ([torch.zeros(3, 2)], "list"), ({"coord": torch.zeros(3, 3)}, "dict")],
)
def test_output_of_an_unknown_kind(output, name):
    with pytest.raises(TypeError, match=f"the backbone returned {name}, expected a tensor"):
        row_features(output, 3)


@pytest.mark.parametrize(
    "counts, up_cast_level, steps", [([9], 1, 0), ([9, 3], 2, 1), ([9, 5, 2], 4, 2)]
)
def test_up_cast_level_too_high(counts, up_cast_level, steps):
    output = make_hierarchy(5, counts, [2] * len(counts))[-1]
    message = f"up_cast_level={up_cast_level}, but the backbone's output has {steps} pooling steps"
    with pytest.raises(ValueError, match=message):
        row_features(output, 9, up_cast_level)
    with pytest.raises(ValueError, match="up_cast_level=1.*has 0 pooling steps"):
        row_features(torch.zeros(9, 2), 9, 1)


def test_wrong_number_of_rows():
    message = "returned 8 rows at its finest level for 9 input points"
    with pytest.raises(ValueError, match=message):
        row_features(torch.zeros(8, 2), 9)
    with pytest.raises(ValueError, match=message):
        row_features(make_hierarchy(6, [8, 3], [2, 2])[-1], 9)


def random_points(seed: int, n: int, clouds: int, id_range: int):
    """Shuffled (id, cloud) pairs; the same id occurs in several clouds, never twice in one."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randperm(clouds * id_range, generator=generator)[:n]
    return pairs % id_range, pairs // id_range


@pytest.mark.parametrize(
    "n, m, clouds, id_range",
    [(1, 1, 1, 1), (200, 150, 4, 60), (150, 200, 1, 400), (30, 300, 5, 60), (300, 5, 7, 50)],
)
@pytest.mark.parametrize("spread", [1, 10_007])  # the table of all pairs, and the sort
def test_find_points_equals_a_dictionary(n, m, clouds, id_range, spread):
    ids, cloud = random_points(0, n, clouds, id_range)
    in_ids, in_cloud = random_points(1, m, clouds, id_range)
    ids, in_ids = ids * spread, in_ids * spread
    place = {pair: i for i, pair in enumerate(zip(in_cloud.tolist(), in_ids.tolist()))}
    found = find_points(ids, cloud, in_ids, in_cloud)
    assert found.dtype == torch.int64
    assert found.tolist() == [place.get(pair, -1) for pair in zip(cloud.tolist(), ids.tolist())]
    assert (found >= 0).any()  # none of the tables is trivial


def test_find_points_with_large_ids_and_many_clouds():
    last = 2**40 - 1
    in_ids, in_cloud = torch.tensor([0, last, last, 5]), torch.tensor([2**22, 0, 2**22, 1])
    ids, cloud = torch.tensor([last, 0, 0, last, 5]), torch.tensor([2**22, 1, 2**22, 0, 1])
    assert find_points(ids, cloud, in_ids, in_cloud).tolist() == [2, -1, 0, 1, 3]


def test_find_points_in_nothing_and_of_nothing():
    ids, cloud, none = torch.tensor([3, 4]), torch.tensor([0, 1]), torch.zeros(0, dtype=torch.int64)
    assert find_points(ids, cloud, none, none).tolist() == [-1, -1]
    assert find_points(none, none, ids, cloud).tolist() == []
    assert find_points(none, none, none, none).dtype == torch.int64


def match_by_loop(row_of_point, num_rows, teacher_point, teacher_row_of_point):
    """For every student row: the teacher row of its first point that the teacher has, else -1."""
    matched = [-1] * num_rows
    for row in range(num_rows):
        for point, its_row in enumerate(row_of_point.tolist()):
            if its_row == row and teacher_point[point] >= 0:
                matched[row] = teacher_row_of_point[teacher_point[point]].item()
                break
    return matched


@pytest.mark.parametrize(
    "points, rows, teacher_points, teacher_rows, share",
    [
        (1, 1, 1, 1, 1.0),
        (100, 100, 80, 80, 0.5),  # as many rows as points may be
        (100, 20, 300, 40, 0.3),  # pooled; most rows have some point at the teacher
        (100, 60, 50, 10, 0.05),  # most rows have none
        (50, 9, 40, 8, 0.0),
    ],
)
def test_match_rows_equals_loops(points, rows, teacher_points, teacher_rows, share):
    generator = torch.Generator().manual_seed(7)
    row_of_point = torch.randint(rows, (points,), generator=generator)
    teacher_row_of_point = torch.randint(teacher_rows, (teacher_points,), generator=generator)
    teacher_point = torch.randint(teacher_points, (points,), generator=generator)
    teacher_point[torch.rand(points, generator=generator) >= share] = -1
    match = match_rows(row_of_point, rows, teacher_point, teacher_row_of_point)
    expected = match_by_loop(row_of_point, rows, teacher_point, teacher_row_of_point)
    assert match.dtype == torch.int64 and match.tolist() == expected
    assert (max(expected) >= 0) == (share > 0)


def test_the_first_point_that_the_teacher_has_decides():
    # Student rows: 0 holds points 0, 2, 3; 1 holds 1, 4; 2 holds 5; 3 holds nothing.
    row_of_point = torch.tensor([0, 1, 0, 0, 1, 2])
    teacher_point = torch.tensor([-1, 7, 3, 0, 2, -1])
    teacher_row_of_point = torch.tensor([10, 11, 12, 13, 14, 15, 16, 17])
    match = match_rows(row_of_point, 4, teacher_point, teacher_row_of_point)
    # Row 0: point 0 is not there, point 2 is point 3 of the teacher. Row 1: point 1 is point 7.
    assert match.tolist() == [13, 17, -1, -1]


def test_match_rows_without_points():
    none = torch.zeros(0, dtype=torch.int64)
    for rows, teacher_rows in ((0, none), (3, none), (3, torch.tensor([0, 1]))):
        assert match_rows(none, rows, none, teacher_rows).tolist() == [-1] * rows
    # Points on the student's side alone.
    match = match_rows(torch.tensor([0, 0]), 1, torch.tensor([-1, -1]), none)
    assert match.tolist() == [-1]


def test_same_view_pooled_on_a_shared_grid_matches_cell_by_cell():
    """Student and teacher pool by the view's grid: matched rows are the same cell of the grid."""
    generator = torch.Generator().manual_seed(8)
    cell = torch.randint(12, (80,), generator=generator)
    visible = (torch.rand(80, generator=generator) < 0.3).nonzero().squeeze(1)
    ids = torch.randperm(1000, generator=generator)[:80]
    teacher_cells, teacher_row = cell.unique(return_inverse=True)
    student_cells, student_row = cell[visible].unique(return_inverse=True)
    cloud = torch.zeros(80, dtype=torch.int64)
    point = find_points(ids[visible], cloud[visible], ids, cloud)
    assert torch.equal(point, visible)
    match = match_rows(student_row, len(student_cells), point, teacher_row)
    assert torch.equal(teacher_cells[match], student_cells)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("n", [0, 1, 200])
def test_true_positions_equals_nonzero(n, share):
    mask = torch.rand(n, generator=torch.Generator().manual_seed(9)) < share
    expected = mask.nonzero().squeeze(1)
    assert torch.equal(true_positions(mask, len(expected)), expected)
