"""Scenes and batches of every kind of badness: a result for which all that is promised holds, or
an error that names the transform and the key.

Run on the embedded host by default, and on Pointcept by
``DOS_HOST=pointcept python -m dos_plugin.cpu -m pytest tests/contract/test_fuzz_data.py``.
"""

import copy

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from dos_plugin.models.batch import Views, jitter_masked, read_views
from dos_plugin.transforms.masking import BlockMask
from dos_plugin.transforms.views import Height, PointId, TwoViews
from tests.batches import view_batch
from tests.fuzzing import tries

GRID = dict(type="GridSample", grid_size=0.3, hash_type="fnv", mode="train", return_grid_coord=True)
ERRORS = (ValueError, TypeError, KeyError)

# -- scenes ------------------------------------------------------------------------------------

KEYS = ("coord", "strength", "segment")
# Of a value of a scene: each makes another one.
SCENE_FAULTS = {
    "missing": None,
    "none": lambda value: None,
    "list": lambda value: value.tolist(),
    "text": lambda value: "points",
    "number": lambda value: 3.0,
    "objects": lambda value: value.astype(object),
    "letters": lambda value: value.astype(str),
    "complex": lambda value: value.astype(complex),
    "whole": lambda value: np.nan_to_num(value).clip(-1e9, 1e9).astype(np.int32),
    "bool": lambda value: value != 0,
    "half": lambda value: value.astype(np.float16),
    "double": lambda value: value.astype(np.float64),
    "a row less": lambda value: value[1:],
    "a row more": lambda value: np.concatenate([value, value[:1]]),
    "flat": lambda value: value.reshape(-1),
    "deep": lambda value: value[None],
    "a scalar": lambda value: np.float32(1).reshape(()),
    "NaN": lambda value: poked(value, np.nan),
    "inf": lambda value: poked(value, -np.inf),
    "all NaN": lambda value: np.full_like(value, np.nan, dtype=np.float32),
}


def poked(value, what):
    value = value.astype(np.result_type(value, np.float32))
    value[len(value) // 2 :][:2] = what
    return value


@st.composite
def scenes(draw):
    count = draw(st.sampled_from([0, 1, 2, 3, 40]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.sampled_from([0.0, 1e-30, 1e-3, 20.0, 20.0, 1e4, 1e7, 1e12, 1e30, 3e38]))
    shift = draw(st.sampled_from([0.0, 0.0, -1e3, 5e5, 1e25]))
    coord = rng.uniform(-1, 1, (count, 3)) * size + shift
    coord = coord[rng.integers(0, count, count)] if count and draw(st.booleans()) else coord
    scene = dict(
        coord=coord.astype(np.float32),
        strength=rng.uniform(0, 1, (count, 1)).astype(np.float32),
        segment=rng.integers(0, 5, count),
    )
    if draw(st.booleans()):
        scene["name"] = "street"
    if draw(st.booleans()):
        scene["index_valid_keys"] = draw(st.lists(st.sampled_from([*KEYS, "normal"]), max_size=4))
    faults = st.tuples(st.sampled_from(KEYS), st.sampled_from(list(SCENE_FAULTS)))
    for key, fault in draw(st.lists(faults, max_size=2)):
        if fault == "missing":
            scene.pop(key, None)
        elif isinstance(scene.get(key), np.ndarray) and scene[key].dtype.kind in "fiub":
            with np.errstate(all="ignore"):
                scene[key] = SCENE_FAULTS[fault](scene[key])
    return scene


def result(transform, data):
    """What a transform gives; None where an error names it and a key."""
    name = type(transform).__name__
    try:
        with np.errstate(all="ignore"):
            return transform(data)
    except ERRORS as error:
        text = str(error)
        assert f"{name}: " in text and any(f"{key}'" in text for key in data | DEFAULT), repr(error)
        assert "\n" not in text and len(text) < 400
        return None


DEFAULT = dict.fromkeys([*KEYS, "point_id", "view1_coord", "view2_coord", "grid_coord"])


def plain_cells(coord, size):
    cells = np.array([[int(np.floor(np.float64(x) / size)) for x in row] for row in coord])
    return cells - cells.min(axis=0)


def check_ids(before, data):
    """Rows of all keys are those of the scene that are finite, and ids count them."""
    listed = before.get("index_valid_keys", KEYS)
    keys = [key for key in KEYS if key in before and (key in listed or key == "coord")]
    rows = [
        row
        for row in range(len(before["coord"]))
        if all(np.all(np.isfinite(before[key][row])) for key in keys)
    ]
    count = max(1, len(rows))
    np.testing.assert_array_equal(data["point_id"], np.arange(count))
    assert data["index_valid_keys"][-1] == "point_id"
    assert sorted(data["index_valid_keys"]) == sorted([*keys, "point_id"])
    for key in keys:
        expected = before[key][rows] if rows else np.zeros((1, *before[key].shape[1:]))
        np.testing.assert_array_equal(data[key], expected)


def check_views(scene, data):
    """A view's rows are rows of the scene, one a cell."""
    for view in ("view1", "view2"):
        ids, coord = data[f"{view}_point_id"], data[f"{view}_coord"]
        assert 0 < len(ids) == len(np.unique(ids)) and 0 <= ids.min()
        np.testing.assert_array_equal(scene["coord"][ids], coord)
        np.testing.assert_array_equal(scene["strength"][ids], data[f"{view}_strength"])
        cells = data[f"{view}_grid_coord"]
        assert cells.min() == 0
        assert len(np.unique(cells, axis=0)) == len(cells)
        np.testing.assert_array_equal(cells, plain_cells(coord, 0.3))
    assert data["index_valid_keys"] == ["coord"] and len(data["coord"]) == 1


@tries(400)
@given(scene=scenes(), seed=st.integers(0, 2**32 - 1), block=st.sampled_from([1e-6, 0.5, 1.0, 1e6]))
def test_scenes(scene, seed, block):
    np.random.seed(seed)
    before = copy.deepcopy(scene)
    data = result(PointId(), scene)
    if data is None:
        return
    check_ids(before, data)
    data = result(Height(), data)
    assert data is not None
    np.testing.assert_array_equal(data["height"], data["coord"][:, 2:])
    scene = dict(data)
    data = result(TwoViews(view_transform=[GRID], max_size=30), data)
    if data is None:
        return
    check_views(scene, data)
    data = result(BlockMask(block_size=block, min_visible=5), data)
    assert data is not None
    for view in ("view1", "view2"):
        visible = data[f"{view}_visible"]
        assert visible.dtype == bool and visible.shape == data[f"{view}_point_id"].shape
        assert visible.sum() >= min(5, len(visible))


@pytest.mark.parametrize("transform", [Height(), TwoViews(view_transform=[GRID]), BlockMask()])
@tries(150)
@given(scene=scenes())
def test_scenes_that_nobody_checked_before(transform, scene):
    """Without PointId in front of it a transform still says what is wrong."""
    np.random.seed(0)
    if isinstance(scene.get("coord"), np.ndarray) and scene["coord"].ndim:
        scene["point_id"] = np.arange(len(scene["coord"]))
    scene |= {f"{v}_coord": scene["coord"] for v in ("view1", "view2") if "coord" in scene}
    data = result(transform, dict(scene))
    if data is not None and isinstance(transform, TwoViews):
        for view in ("view1", "view2"):
            assert np.isfinite(data[f"{view}_coord"]).all()
            assert data[f"{view}_grid_coord"].min() >= 0
    if data is not None and isinstance(transform, BlockMask):
        assert data["view1_visible"].any() and np.isfinite(data["view1_coord"]).all()


def test_blocks_too_many_to_number_are_told_apart():
    """Cubes of a micrometre in a scene of 1e7 m: more than an integer can number."""
    np.random.seed(0)
    coord = np.random.default_rng(0).uniform(0, 1e7, (60, 3)).astype(np.float32)
    coord[40:] = coord[0]
    visible = BlockMask(block_size=1e-6, mask_ratio=0.5, min_visible=1).visible(coord)
    assert len(np.unique(visible[40:])) == 1 and visible[0] == visible[40]
    assert 40 - np.count_nonzero(visible[:40]) == 20


# -- batches -----------------------------------------------------------------------------------

BATCH = view_batch((30, 4, 25))
POINT_KEYS = ("coord", "grid_coord", "feat", "point_id", "visible")
# Of a value of a batch: each makes another one.
BATCH_FAULTS = {
    "missing": None,
    "none": lambda value: None,
    "list": lambda value: value.tolist(),
    "array": lambda value: value.numpy(),
    "half": lambda value: value.half(),
    "double": lambda value: value.double(),
    "whole": lambda value: value.long(),
    "short": lambda value: value.to(torch.int32),
    "byte": lambda value: value.to(torch.uint8),
    "complex": lambda value: value.to(torch.complex64),
    "bool": lambda value: value != 0,
    "a row less": lambda value: value[1:],
    "no row": lambda value: value[:0],
    "a column more": lambda value: torch.cat([value, value[..., :1]], dim=-1),
    "flat": lambda value: value.reshape(-1),
    "deep": lambda value: value[None],
    "a scalar": lambda value: value.flatten()[0],
    "NaN": lambda value: poked_tensor(value.float(), float("nan")),
    "inf": lambda value: poked_tensor(value.float(), float("inf")),
    "negative": lambda value: poked_tensor(value.long(), -3),
    "huge": lambda value: poked_tensor(value.long(), 2**60),
    "reversed": lambda value: value.flip(0),
    "all zero": torch.zeros_like,
    "falling": lambda value: torch.cat([value[1:2] * 2, value[1:]]),
}
VIEW_KEYS = [f"{view}_{key}" for view in ("view1", "view2") for key in (*POINT_KEYS, "offset")]


def poked_tensor(value, what):
    value = value.clone()
    value[len(value) // 2 :][:1] = what
    return value


def faulty(batch, faults):
    """A batch after some faults; those that make no sense for a value are passed over."""
    batch = dict(batch)
    for key, fault in faults:
        if fault == "missing":
            batch.pop(key, None)
        elif isinstance(batch.get(key), torch.Tensor) and batch[key].ndim:
            if len(batch[key]):
                batch[key] = BATCH_FAULTS[fault](batch[key])
    return batch


def plain_views(batch, min_visible):
    """The clouds of all finite scenes with enough visible points, read point by point."""
    ends = [batch[f"{view}_offset"].tolist() for view in ("view1", "view2")]
    bounds = [list(zip([0, *end], end)) for end in ends]
    kept = [
        scene
        for scene in range(len(ends[0]))
        if all(
            int(batch[f"{view}_visible"][slice(*bounds[i][scene])].sum()) >= min_visible
            and batch[f"{view}_coord"][slice(*bounds[i][scene])].isfinite().all()
            and batch[f"{view}_feat"][slice(*bounds[i][scene])].isfinite().all()
            for i, view in enumerate(("view1", "view2"))
        )
    ]
    clouds = [
        {key: batch[f"{view}_{key}"][slice(*bounds[i][scene])] for key in POINT_KEYS}
        for i, view in enumerate(("view1", "view2"))
        for scene in kept
    ]
    return clouds, len(kept)


@tries(800)
@given(
    faults=st.lists(
        st.tuples(st.sampled_from(VIEW_KEYS), st.sampled_from(list(BATCH_FAULTS))), max_size=2
    ),
    min_visible=st.sampled_from([1, 10, 10**9]),
    name=st.sampled_from([None, ["a", "b", "c"], ["a"], []]),
)
@example(faults=[], min_visible=10, name=None)
@example(faults=[("view2_visible", "byte")], min_visible=10, name=["a"])
@example(faults=[("view1_offset", "falling")], min_visible=1, name=None)
@example(faults=[("view1_grid_coord", "negative")], min_visible=1, name=[])
@example(faults=[("view2_feat", "NaN")], min_visible=1, name=["a", "b", "c"])
def test_batches(faults, min_visible, name):
    batch = faulty(BATCH, faults)
    if name is not None:
        batch["name"] = name
    try:
        views = read_views(batch, min_visible)
    except ERRORS as error:
        text = str(error)
        assert "batch key 'view" in text and any(f"'{key}'" in text for key, _ in faults), repr(
            error
        )
        assert "\n" not in text
        return
    assert isinstance(views, Views)
    expected, num_scenes = plain_views(batch, min_visible)
    assert views.num_scenes == num_scenes
    types = [torch.float32, torch.int64, torch.float32, torch.int64, torch.bool]
    assert [getattr(views.clouds, key).dtype for key in POINT_KEYS] == types
    lengths = [len(cloud["coord"]) for cloud in expected]
    assert views.clouds.offset(2 * num_scenes).tolist() == np.cumsum(lengths, dtype=int).tolist()
    for key in POINT_KEYS:
        wanted = [cloud[key] for cloud in expected] or [batch[f"view1_{key}"][:0]]
        assert torch.equal(getattr(views.clouds, key).double(), torch.cat(wanted).double())
    assert views.num_visible == int(views.clouds.visible.sum())
    assert views.clouds.coord.isfinite().all() and views.clouds.feat.isfinite().all()
    assert (views.clouds.grid_coord >= 0).all()


@pytest.mark.parametrize("value", [None, [0.5], torch.zeros(0)])
def test_jitter_without_a_grid_size(value):
    clouds = read_views(BATCH, 1).clouds
    batch = BATCH if value is None else {**BATCH, "grid_size": value}
    if value is None:
        batch = {key: value for key, value in BATCH.items() if key != "grid_size"}
    with pytest.raises(ERRORS, match="batch key 'grid_size'"):
        jitter_masked(clouds, 0.1, batch)
