"""PointId, TwoViews, Height and BlockMask: what holds for every scene, and what bad scenes do."""

import logging

import numpy as np
import pytest

from dos_plugin import messages
from dos_plugin.host import HOST
from dos_plugin.transforms.cells import ViewGridSample, is_view_grid_sample
from dos_plugin.transforms.masking import BlockMask
from dos_plugin.transforms.views import Height, PointId, TwoViews


def scene(n: int, seed: int = 0, size: float = 20.0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "coord": rng.uniform(0, size, (n, 3)).astype(np.float32),
        "strength": rng.uniform(0, 1, (n, 1)).astype(np.float32),
        "segment": rng.integers(0, 5, n),
        "name": f"scene{seed}",
    }


GRID = dict(type="GridSample", grid_size=0.3, hash_type="fnv", mode="train", return_grid_coord=True)


@pytest.fixture(autouse=True)
def seeded():
    np.random.seed(0)
    messages._counts.clear()


class TestPointId:
    def test_ids_follow_their_points_through_a_selection(self):
        data = PointId()(scene(500))
        coord = data["coord"].copy()
        data = HOST.TRANSFORMS.build(dict(type="GridSample", grid_size=2.0, mode="train"))(data)
        assert len(data["coord"]) < 500
        np.testing.assert_array_equal(coord[data["point_id"]], data["coord"])

    def test_keeps_the_callers_key_list(self):
        keys = ["coord", "strength"]
        data = PointId()({**scene(5), "index_valid_keys": keys})
        assert keys == ["coord", "strength"]
        assert data["index_valid_keys"] == ["coord", "strength", "point_id"]

    @pytest.mark.parametrize(
        "key, bad", [("coord", np.nan), ("coord", np.inf), ("strength", -np.inf)]
    )
    def test_drops_points_that_are_not_finite(self, key, bad, caplog):
        data = scene(10)
        data[key][3] = bad
        expected = np.delete(data["segment"], 3)
        with caplog.at_level(logging.WARNING, "dos_plugin"):
            data = PointId()(data)
        np.testing.assert_array_equal(data["segment"], expected)
        assert all(np.isfinite(data[k]).all() for k in ("coord", "strength"))
        assert len(data["point_id"]) == 9

    @pytest.mark.parametrize("n", [0, 4])
    def test_a_scene_without_a_point_becomes_one_point(self, n):
        data = scene(n)
        data["coord"][:] = np.nan
        data = PointId()(data)
        assert {k: data[k].shape for k in ("coord", "strength", "segment", "point_id")} == {
            "coord": (1, 3),
            "strength": (1, 1),
            "segment": (1,),
            "point_id": (1,),
        }
        assert np.isfinite(data["coord"]).all()

    def test_errors_name_scene_and_key(self):
        with pytest.raises(KeyError, match=r"scene 'scene0' has no 'coord'"):
            PointId()({k: v for k, v in scene(3).items() if k != "coord"})
        with pytest.raises(
            ValueError, match=r"'coord' of scene 'scene0' must be \(N, 3\), got \(3, 2\)"
        ):
            PointId()({**scene(3), "coord": np.zeros((3, 2))})
        with pytest.raises(ValueError, match="3 rows of 'coord' but 2 of 'strength'"):
            PointId()({**scene(3), "strength": np.zeros((2, 1))})


class TestTwoViews:
    def views(self, n=2000, **options):
        options = {"view_transform": [GRID], "view_scale": (0.3, 0.6), **options}
        return TwoViews(**options)(PointId()(scene(n)))

    def test_ids_name_the_same_points_in_both_views_and_the_scene(self):
        coord = scene(2000)["coord"]
        data = self.views()
        for view in ("view1", "view2"):
            np.testing.assert_array_equal(coord[data[f"{view}_point_id"]], data[f"{view}_coord"])
            assert len(np.unique(data[f"{view}_point_id"])) == len(data[f"{view}_point_id"])
        assert len(np.intersect1d(data["view1_point_id"], data["view2_point_id"])) > 0

    def test_a_view_is_the_neighbourhood_of_a_point(self):
        coord = scene(500)["coord"]
        data = TwoViews(view_scale=(0.2, 0.2), view_transform=[{**GRID, "grid_size": 1e-3}])(
            PointId()(scene(500))
        )
        ids = np.sort(data["view1_point_id"])
        assert len(ids) == 100
        nearest = np.argsort(np.square(coord[:, None] - coord[None]).sum(-1), axis=1)[:, :100]
        assert any(np.array_equal(np.sort(row), ids) for row in nearest)

    def test_max_size_bounds_a_view(self):
        data = self.views(max_size=300, view_scale=(1.0, 1.0))
        assert len(data["view1_point_id"]) <= 300

    def test_augments_each_view_by_itself_and_leaves_one_row_of_the_scene(self):
        rotate = dict(type="RandomRotate", angle=[-1, 1], axis="z", center=[0, 0, 0], p=1.0)
        data = self.views(view_transform=[rotate, GRID], view_scale=(1.0, 1.0))
        _, i, j = np.intersect1d(
            data["view1_point_id"], data["view2_point_id"], return_indices=True
        )
        assert np.abs(data["view1_coord"][i] - data["view2_coord"][j]).max() > 1
        assert data["coord"].shape == (1, 3)
        assert "strength" not in data and "point_id" not in data
        assert data["view1_grid_coord"].min() == 0

    @pytest.mark.parametrize("n", [1, 2])
    def test_tiny_scenes(self, n):
        data = self.views(n=n)
        assert len(data["view1_coord"]) >= 1 and len(data["view2_coord"]) >= 1

    def test_duplicate_points_share_a_cell(self):
        data = PointId()(scene(50))
        data["coord"][:] = data["coord"][0]
        data = TwoViews(view_transform=[GRID])(data)
        assert len(data["view1_coord"]) == 1

    def test_errors(self):
        with pytest.raises(ValueError, match=r"view_keys must hold \['point_id'\]"):
            TwoViews(view_keys=("coord",))
        with pytest.raises(
            ValueError, match=r"view_scale\[1\] must be a number in \[0.5, 1\], got 1.2"
        ):
            TwoViews(view_scale=(0.5, 1.2))
        with pytest.raises(
            ValueError, match="max_size must be a whole number of at least 1, got 0"
        ):
            TwoViews(max_size=0)
        with pytest.raises(KeyError, match="has no 'point_id'; put PointId first"):
            TwoViews(view_transform=[GRID])(scene(10))
        with pytest.raises(KeyError, match="made no 'grid_coord'"):
            TwoViews()(PointId()(scene(10)))


def plain_cells(coord: np.ndarray, size: float) -> np.ndarray:
    cells = np.array([[int(np.floor(np.float64(x) / size)) for x in row] for row in coord])
    return cells - cells.min(axis=0)


class TestViewGridSample:
    """Against cells computed point by point, and against the host's GridSample."""

    def sample(self, transform, data: dict) -> dict:
        keys = ["coord", "strength", "row"]
        data = {**data, "row": np.arange(len(data["coord"])), "index_valid_keys": keys}
        return transform(data)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_cells_are_those_of_the_host(self, dtype):
        data = scene(3000, size=6.0)
        data["coord"] = (data["coord"] - 2).astype(dtype)
        cells = plain_cells(data["coord"], GRID["grid_size"])
        for transform in (ViewGridSample(GRID), HOST.TRANSFORMS.build(GRID)):
            view = self.sample(transform, data)
            rows = view["row"]
            assert len(rows) == len(np.unique(cells, axis=0)) < 3000
            assert len(np.unique(view["grid_coord"], axis=0)) == len(rows)
            np.testing.assert_array_equal(view["grid_coord"], cells[rows])
            np.testing.assert_array_equal(view["coord"], data["coord"][rows])
            np.testing.assert_array_equal(view["strength"], data["strength"][rows])
            assert view["index_valid_keys"] == ["coord", "strength", "row", "grid_coord"]
            assert view["grid_coord"].dtype == np.int64

    def test_every_point_of_a_cell_has_the_same_chance(self):
        data = scene(8, size=1e-3)
        data["coord"][5:] += 10.0  # cells of five and three points
        taken = np.zeros(8)
        for _ in range(3000):
            taken[self.sample(ViewGridSample(GRID), data)["row"]] += 1
        assert taken.sum() == 6000 and taken[:5].sum() == 3000
        np.testing.assert_allclose(taken[:5], 600, atol=5 * np.sqrt(3000 * 0.2 * 0.8))
        np.testing.assert_allclose(taken[5:], 1000, atol=5 * np.sqrt(3000 / 3 * 2 / 3))

    def test_the_order_of_rows_says_nothing_of_the_place(self):
        view = self.sample(ViewGridSample(GRID), scene(4000))
        correlation = np.corrcoef(view["coord"].T, np.arange(len(view["coord"])))[3, :3]
        assert np.abs(correlation).max() < 0.1

    def test_extent_too_large_for_an_integer_is_left_to_the_host(self):
        data = scene(40, size=1e6)
        config = {**GRID, "grid_size": 1e-3}
        fast = ViewGridSample(config)
        fast.host_transform = lambda view: pytest.fail("not needed here")
        assert len(self.sample(fast, scene(40, size=10))["coord"]) == 40
        view = self.sample(ViewGridSample(config), data)
        np.testing.assert_array_equal(
            view["grid_coord"], plain_cells(data["coord"], 1e-3)[view["row"]]
        )
        assert len(view["row"]) == 40
        with pytest.raises(pytest.fail.Exception):
            self.sample(fast, data)

    @pytest.mark.skipif(HOST.name != "minihost", reason="the real host lets them pass")
    @pytest.mark.parametrize("n, bad", [(0, 0.0), (5, np.nan), (5, np.inf)])
    def test_nothing_or_not_finite_is_an_error_of_the_embedded_host(self, n, bad):
        data = scene(n)
        data["coord"][1:2] = bad
        with pytest.raises(ValueError, match="GridSample"):
            self.sample(ViewGridSample(GRID), data)

    @pytest.mark.parametrize(
        "change, fits",
        [
            (dict(), True),
            (dict(grid_size=1), True),
            (dict(grid_size=[0.1, 0.1, 0.2]), False),
            (dict(return_grid_coord=False), False),
            (dict(return_displacement=True), False),
            (dict(mode="test"), False),
            (dict(type="SphereCrop"), False),
        ],
    )
    def test_it_stands_for_plain_ones_only(self, change, fits):
        assert is_view_grid_sample({**GRID, **change}) is fits

    def test_a_grid_sample_with_more_options_is_the_hosts(self):
        data = TwoViews(view_transform=[{**GRID, "return_displacement": True}])(
            PointId()(scene(300))
        )
        assert data["view1_displacement"].shape == data["view1_coord"].shape


def test_height_is_z_and_selected_with_the_points():
    data = Height()(PointId()(scene(30)))
    np.testing.assert_array_equal(data["height"][:, 0], data["coord"][:, 2])
    data = HOST.TRANSFORMS.build(dict(type="GridSample", grid_size=8.0, mode="train"))(data)
    np.testing.assert_array_equal(data["height"][:, 0], data["coord"][:, 2])
    assert Height()(data)["index_valid_keys"].count("height") == 1


class TestBlockMask:
    def test_whole_blocks_are_masked_at_the_given_ratio(self):
        rng = np.random.default_rng(1)
        # Four points near the middle of every cell of a 12 x 12 x 1 arrangement 3 m apart: with
        # blocks of 2 m no two cells share a block, whatever the origin of the blocks.
        cells = np.stack(np.meshgrid(np.arange(12), np.arange(12), [0]), -1).reshape(-1, 3)
        coord = np.repeat(cells * 4.0, 4, axis=0) + rng.uniform(0, 1e-6, (576, 3))
        visible = BlockMask(block_size=2.0, mask_ratio=0.7, min_visible=1).visible(coord)
        of_cell = visible.reshape(144, 4)
        assert np.isin(of_cell.sum(axis=1), (0, 4)).all()
        assert of_cell[:, 0].sum() == 144 - int(0.7 * 144)

    # In a table of all places for blocks, and with np.unique where that is too large.
    @pytest.mark.parametrize("block_size", [2.0, 0.01])
    @pytest.mark.parametrize("ratio, least", [(0.7, 1), (0.7, 300), (0.9, 250), (0.0, 1)])
    def test_equals_blocks_found_point_by_point(self, block_size, ratio, least):
        coord = scene(400, size=10.0)["coord"] - 3
        coord[200:] = coord[:200] + 1e-7
        np.random.seed(4)
        visible = BlockMask(block_size, ratio, least).visible(coord)

        np.random.seed(4)
        origin = coord.min(axis=0) - np.random.uniform(0, block_size, 3)
        blocks: dict[tuple, list[int]] = {}
        for row, point in enumerate(coord):
            blocks.setdefault(tuple(np.floor((point - origin) / block_size)), []).append(row)
        for rows in blocks.values():
            assert visible[rows].all() or not visible[rows].any()
        masked = [len(rows) for rows in blocks.values() if not visible[rows[0]]]
        assert visible.sum() >= least
        assert len(masked) <= int(ratio * len(blocks))
        if len(masked) < int(ratio * len(blocks)):  # for the sake of min_visible only
            largest = max(len(rows) for rows in blocks.values())
            assert visible.sum() < least + largest

    @pytest.mark.parametrize(
        "n, ratio, least", [(1, 0.99, 64), (10, 0.99, 64), (500, 0.99, 100), (500, 0, 1)]
    )
    def test_enough_stays_visible(self, n, ratio, least):
        for seed in range(20):
            np.random.seed(seed)
            visible = BlockMask(1.0, ratio, least).visible(scene(n, seed)["coord"])
            assert visible.dtype == bool and visible.shape == (n,)
            assert visible.sum() >= min(n, least)
            assert ratio > 0 or visible.all()

    def test_no_more_blocks_are_kept_than_needed(self):
        coord = np.arange(100, dtype=np.float32)[:, None] * np.array([[5.0, 0, 0]])  # a block each
        assert BlockMask(1.0, 0.99, 40).visible(coord).sum() == 40
        assert BlockMask(1.0, 0.30, 40).visible(coord).sum() == 70

    def test_block_larger_than_the_view_masks_nothing_and_says_so(self, caplog):
        with caplog.at_level(logging.WARNING, "dos_plugin"):
            for seed in range(50):
                np.random.seed(seed)
                assert BlockMask(1e4, 0.7).visible(scene(50, size=0.1)["coord"]).all()
        assert "nothing is masked" in caplog.text

    def test_masks_every_view_of_a_sample(self):
        data = {"view1_coord": scene(300)["coord"], "view2_coord": scene(200, 1)["coord"]}
        data = BlockMask(2.0)(data)
        assert data["view1_visible"].shape == (300,) and data["view2_visible"].shape == (200,)
        assert not data["view1_visible"].all()

    @pytest.mark.parametrize(
        "options, message",
        [
            (dict(mask_ratio=1.0), r"mask_ratio must be a number in \[0, 1\), got 1.0"),
            (dict(mask_ratio=-0.1), "mask_ratio"),
            (dict(mask_ratio=float("nan")), "mask_ratio"),
            (dict(block_size=0), "block_size must be a number in .0, inf., got 0"),
            (dict(block_size=float("nan")), "block_size"),
            (dict(min_visible=0), "min_visible must be a whole number of at least 1, got 0"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            BlockMask(**options)

    def test_missing_view(self):
        with pytest.raises(KeyError, match="no 'view2_coord' in the sample"):
            BlockMask()({"view1_coord": scene(10)["coord"]})
