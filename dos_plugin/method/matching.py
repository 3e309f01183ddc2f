"""From permanent point ids to matched rows of student and teacher features (DOS, section 2).

A *point* is a row of a backbone's input, a *row* is a row of its output. Backbones that pool give
fewer rows than points; the maps of their pooling steps compose to one map from points to rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Ids of one scene stay below this: room for 2**40 points a scene and 2**22 clouds a batch.
ID_BITS = 40
# On a CPU, a table of all (cloud, id) pairs may have so many places for each point.
_DENSE = 8


class RowFeatures(NamedTuple):
    """Backbone features and where each input point went."""

    feat: Tensor  # (R, C)
    row_of_point: Tensor  # (N,) int64


class Levels(NamedTuple):
    """Backbone features of several resolutions, coarse to fine, that are to be joined.

    Attributes:
        feat: (R_l, C_l) of each level; the last one has R rows.
        inverse: of each level but the last one, (R_l+1,) int64: its row for each finer row.
        row_of_point: (N,) int64 row of the last level.
    """

    feat: list[Tensor]
    inverse: list[Tensor]
    row_of_point: Tensor


def up_cast(feat: Sequence[Tensor], inverse: Sequence[Tensor]) -> Tensor:
    """(R, sum of C_l): features of a coarse row are appended to those of its finer rows."""
    joined = feat[0]
    for fine, rows in zip(feat[1:], inverse):
        joined = torch.cat([fine, joined[rows]], dim=1)
    return joined


def row_features(output: Any, num_points: int, up_cast_level: int = 0) -> RowFeatures:
    """Features of a backbone's output, up-cast, and the row of every input point.

    Arguments and errors as :func:`row_levels`.

    Returns:
        Features (R, C) and the map (N,) from points to rows.
    """
    feat, inverse, row_of_point = row_levels(output, num_points, up_cast_level)
    return RowFeatures(up_cast(feat, inverse), row_of_point)


def row_levels(output: Any, num_points: int, up_cast_level: int = 0) -> Levels:
    """Features of a backbone's output by level, and the row of every input point.

    Args:
        output: A tensor (N, C) in input order, or a point structure of the host (a mapping with
            ``feat`` and, for hierarchical encoders, ``pooling_inverse`` and ``pooling_parent``).
        num_points: N, points in the backbone's input.
        up_cast_level: Pooling steps to undo, as the host does for its own pretraining. -1 undoes
            all of them.

    Raises:
        TypeError: If the output is neither a tensor nor a mapping with ``feat``.
        ValueError: If it has fewer pooling steps than ``up_cast_level``, or its finest level has
            not one row per point.
    """
    if isinstance(output, Tensor):
        levels: list[Mapping] = [{"feat": output}]
    elif isinstance(output, Mapping) and "feat" in output.keys():
        levels = [output]
        while "pooling_parent" in levels[-1].keys():
            levels.append(levels[-1]["pooling_parent"])
    else:
        raise TypeError(
            f"the backbone returned {type(output).__name__}, expected a tensor (N, C) or a point "
            "structure with 'feat'"
        )
    steps = len(levels) - 1
    if up_cast_level > steps:
        raise ValueError(
            f"up_cast_level={up_cast_level}, but the backbone's output has {steps} pooling steps "
            "to undo; set up_cast_level lower (0 for a backbone with decoder or a plain tensor)"
        )
    up_cast_level = steps if up_cast_level < 0 else up_cast_level

    if len(levels[-1]["feat"]) != num_points:
        raise ValueError(
            f"the backbone returned {len(levels[-1]['feat'])} rows at its finest level for "
            f"{num_points} input points, expected one row per point in input order"
        )
    row_of_point = torch.arange(num_points, device=levels[0]["feat"].device)
    for coarse in reversed(levels[up_cast_level:-1]):
        row_of_point = coarse["pooling_inverse"][row_of_point]
    return Levels(
        [level["feat"] for level in levels[: up_cast_level + 1]],
        [level["pooling_inverse"] for level in levels[:up_cast_level]],
        row_of_point,
    )


def find_points(ids: Tensor, cloud: Tensor, in_ids: Tensor, in_cloud: Tensor) -> Tensor:
    """Position of every (cloud, id) pair in another list of pairs.

    Args:
        ids: (N,) int64 point ids, unique within a cloud, below 2**40.
        cloud: (N,) int64 index of the cloud of each point.
        in_ids: (M,) ids to search in.
        in_cloud: (M,) their clouds.

    Returns:
        (N,) int64 index into ``in_ids``, -1 where there is no such pair.
    """
    if len(in_ids) == 0:
        return torch.full_like(ids, -1)
    if ids.device.type == "cpu" and len(ids):  # on a GPU the host would wait for the table's size
        found = _find_in_table(ids, cloud, in_ids, in_cloud)
        if found is not None:
            return found
    keys, order = torch.sort(in_cloud << ID_BITS | in_ids)
    wanted = cloud << ID_BITS | ids
    position = torch.searchsorted(keys, wanted).clamp_max_(len(keys) - 1)
    return torch.where(keys[position] == wanted, order[position], -1)


def _find_in_table(ids: Tensor, cloud: Tensor, in_ids: Tensor, in_cloud: Tensor) -> Tensor | None:
    """:func:`find_points` in a tenth of the time; None if the table would be too large."""
    span = 1 + int(max(ids.max(), in_ids.max()))
    places = span * (1 + int(max(cloud.max(), in_cloud.max())))
    if places > _DENSE * (len(ids) + len(in_ids)):
        return None
    table = in_ids.new_full((places,), -1)
    table.scatter_(0, in_cloud * span + in_ids, torch.arange(len(in_ids)))
    return table.gather(0, cloud * span + ids)


def match_rows(
    student_row_of_point: Tensor,
    num_student_rows: int,
    teacher_point: Tensor,
    teacher_row_of_point: Tensor,
) -> Tensor:
    """Match student rows with the teacher rows that hold (one of) their points.

    Of several points of a student row the first one that the teacher has decides. In the same
    view they all agree, provided that the student got the grid coordinates of the view.

    Args:
        student_row_of_point: (N,) row of every student point.
        num_student_rows: R.
        teacher_point: (N,) the same point among the teacher's points, -1 where it is not there.
        teacher_row_of_point: (M,) row of every teacher point.

    Returns:
        (R,) int64 teacher row of every student row, -1 where the teacher has none of its points.
    """
    num_points = len(student_row_of_point)
    if num_points == 0 or len(teacher_row_of_point) == 0:
        return teacher_point.new_full((num_student_rows,), -1)
    index = torch.arange(num_points, device=teacher_point.device)
    index = torch.where(teacher_point >= 0, index, num_points)
    first = index.new_full((num_student_rows,), num_points)
    first = first.scatter_reduce(0, student_row_of_point, index, reduce="amin")
    point = teacher_point[first.clamp_max(num_points - 1)].clamp_min(0)
    return torch.where(first < num_points, teacher_row_of_point[point], -1)


def true_positions(mask: Tensor, count: int) -> Tensor:
    """``mask.nonzero()``, but the device need not be waited for.

    Args:
        mask: (N,) bool.
        count: How often it is True.

    Returns:
        (count,) int64, rising.
    """
    slot = torch.where(mask, mask.cumsum(0) - 1, count)  # all others go to a last, spare slot
    index = torch.arange(len(mask), device=mask.device)
    return index.new_empty(count + 1).scatter_(0, slot, index)[:count]
