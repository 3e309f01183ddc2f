"""Scenes and batches at the ends of what can be: through transforms, collate, model and loss.

The same assertions hold on every host.
"""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from dos_plugin import messages, register  # noqa: F401
from dos_plugin.host import HOST
from dos_plugin.method import ZipfSinkhorn, softmap_loss
from dos_plugin.method.matching import find_points, match_rows, true_positions
from dos_plugin.minihost.collate import collate_fn
from dos_plugin.models.batch import Clouds, read_views
from tests.references import double_leaf, relative_error, softmap_loss_reference, unit_rows
from tests.small_backbones import SMALL, UNET

GRID = dict(type="GridSample", hash_type="fnv", mode="train")
KEYS = ("coord", "grid_coord", "point_id", "visible")


def pipeline(grid_size=0.05, view_scale=(0.4, 1.0), **point_id):
    """The transform of the outdoor configs."""
    turn = dict(type="RandomRotate", angle=[-1, 1], axis="z", center=[0, 0, 0], p=1.0)
    views = [turn, dict(GRID, grid_size=grid_size, return_grid_coord=True)]
    collected = [f"{view}_{key}" for view in ("view1", "view2") for key in KEYS]
    steps = [
        dict(type="PointId", **point_id),
        dict(GRID, grid_size=grid_size),
        dict(type="TwoViews", view_scale=view_scale, view_transform=views),
        dict(type="BlockMask", block_size=20 * grid_size),
        dict(type="ToTensor"),
        dict(
            type="Collect",
            keys=(*collected, "name"),
            offset_keys_dict=dict(view1_offset="view1_coord", view2_offset="view2_coord"),
            view1_feat_keys=("view1_coord", "view1_strength"),
            view2_feat_keys=("view2_coord", "view2_strength"),
        ),
    ]
    return HOST.Compose(steps)


def scene(coord, name="scene"):
    coord = np.asarray(coord, dtype=np.float32)
    strength = np.random.default_rng(0).random((len(coord), 1), dtype=np.float32)
    return dict(coord=coord, strength=strength, name=name)


def cloud(n, size=(20, 20, 3), seed=0):
    return np.random.default_rng(seed).random((n, 3)) * size


def model(**backbone):
    torch.manual_seed(0)
    encoder = backbone.get("enc_mode", False)
    return HOST.build_model(
        dict(
            type="DOS-v1m1",
            backbone=backbone,
            backbone_out_channels=56 if encoder else 12,
            up_cast_level=1 if encoder else 0,
            head=dict(hidden_channels=16, out_channels=8),
            num_prototypes=32,
        )
    ).train()


BACKBONES = {
    "m2": dict(SMALL, type="PT-v3m2", enc_mode=True),
    "m1": dict(SMALL, type="PT-v3m1", enc_mode=True),
    "SpUNet": dict(UNET, type="SpUNet-v1m1"),
}
FAR = np.concatenate([cloud(800), [[5000, 3, 1]]])
SCENES = {
    "one point": [[3, 4, 5]],
    "two points": [[3, 4, 5], [9, 9, 9]],
    "one voxel": np.full((500, 3), 1.01) + 0.01 * cloud(500, (1, 1, 1)),
    "one place": np.ones((500, 3)),
    "each point twice": np.repeat(cloud(400), 2, axis=0),
    "a plane": cloud(800) * [1, 1, 0],
    "a line": cloud(800) * [1, 0, 0],
}


@pytest.fixture(autouse=True)
def seeded():
    np.random.seed(0)
    messages._counts.clear()


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", SCENES)
def test_extreme_scenes_alone_and_beside_another(name, backbone):
    net, transform = model(**BACKBONES[backbone]), pipeline()
    for others in ([], [scene(cloud(800), "plain")]):
        samples = [transform(data) for data in (scene(SCENES[name], name), *others)]
        views = read_views(collate_fn(samples), min_visible=1)
        assert views.num_scenes == len(samples)
        for part in range(2 * len(samples)):
            own = views.clouds.select(views.clouds.cloud == part)
            assert own.visible.any() and len(own.point_id.unique()) == len(own.point_id)
            assert len(own.grid_coord.unique(dim=0)) == len(own.grid_coord)
            assert (own.grid_coord.amin(0) == 0).all()
        out = net(collate_fn(samples))
        out["loss"].backward()
        assert torch.isfinite(out["loss"])
        assert all(p.grad.isfinite().all() for p in net.student.parameters())


def test_half_a_million_points():
    """Ids still name the points of the scene, whatever a view keeps of them."""
    data = scene(cloud(500_000, (200, 200, 10)))
    sample = HOST.Compose([dict(type="PointId"), dict(GRID, grid_size=0.05)])({**data})
    views = dict(GRID, grid_size=0.05, return_grid_coord=True)
    sample = HOST.TRANSFORMS.build(dict(type="TwoViews", view_transform=[views]))(sample)
    for view in ("view1", "view2"):
        ids = sample[f"{view}_point_id"]
        assert 20_000 < len(ids) <= 65_536 and len(np.unique(ids)) == len(ids)
        np.testing.assert_array_equal(sample[f"{view}_coord"], data["coord"][ids])
    sample = HOST.TRANSFORMS.build(dict(type="BlockMask"))(sample)
    assert 0.2 < sample["view1_visible"].mean() < 0.4


def test_voxels_of_a_micrometre():
    """Distinct while a backbone can number them: 0.05 m are 50,000; more are an error."""
    small = pipeline(1e-6)(scene(cloud(300, (0.05, 0.05, 0.01)), "small"))
    assert len(small["view1_grid_coord"].unique(dim=0)) == len(small["view1_coord"])
    assert 40_000 < small["view1_grid_coord"].max() < 80_000
    large = pipeline(1e-6)(scene(cloud(300), "large"))
    assert large["view1_grid_coord"].max() > 2**23 and (large["view1_grid_coord"] >= 0).all()
    with pytest.raises(ValueError, match=r"scene\(s\) 'large' of a batch are [0-9,]+ voxels long"):
        model(**BACKBONES["m2"])(collate_fn([large]))


class TestOnePointFarAway:
    def test_ptv3_names_the_scene(self):
        transform = pipeline(view_scale=(1.0, 1.0))
        samples = [transform(scene(cloud(800), "near")), transform(scene(FAR, "far"))]
        assert max(samples[1][f"{v}_grid_coord"].max() for v in ("view1", "view2")) > 65_534
        for kind in ("m1", "m2"):
            with pytest.raises(ValueError, match=r"scene\(s\) 'far' of .* expected at most 65,535"):
                model(**BACKBONES[kind])(collate_fn(samples))

    def test_other_errors_of_a_backbone_are_left_alone(self):
        batch = collate_fn([pipeline(view_scale=(1.0, 1.0))(scene(FAR, "far"))])
        net = model(**BACKBONES["m2"])
        net.teacher["backbone"].forward = lambda *_: 1 / 0
        with pytest.raises(ZeroDivisionError):
            net(batch)
        near = collate_fn([pipeline()(scene(cloud(800)))])
        near["view1_feat"] = near["view1_feat"][:, :3]
        near["view2_feat"] = near["view2_feat"][:, :3]
        with pytest.raises((ValueError, RuntimeError), match="in_channels = 4|mat1 and mat2"):
            model(**BACKBONES["m2"])(near)

    def test_max_extent_drops_it_with_a_warning(self, caplog):
        transform = pipeline(view_scale=(1.0, 1.0), max_extent=2000)
        with caplog.at_level(logging.WARNING, "dos_plugin"):
            sample = transform(scene(FAR, "far"))
        assert "dropped 1 of 801 points of scene 'far', 5,000 m long" in caplog.text
        assert max(sample[f"{v}_point_id"].max() for v in ("view1", "view2")) < 800
        assert torch.isfinite(model(**BACKBONES["m2"])(collate_fn([sample]))["loss"])


def test_max_extent_bounds_a_scene_and_says_nothing_where_it_drops_nothing(caplog):
    coord = np.concatenate([cloud(500), [[60, 0, 0], [0, -70, 0], [0, 0, 31]]])
    point_id = HOST.TRANSFORMS.build(dict(type="PointId", max_extent=50.0))
    data = point_id(scene(coord))
    middle = np.median(coord.astype(np.float32), axis=0)
    kept = (np.abs(coord - middle) <= 25)[:, :2].all(axis=1)  # along z the scene is short enough
    assert kept.sum() == 501
    np.testing.assert_array_equal(data["coord"], coord.astype(np.float32)[kept])
    assert len(data["point_id"]) == len(data["strength"]) == 501
    assert np.ptp(data["coord"], axis=0).max() <= 50
    caplog.clear()
    with caplog.at_level(logging.WARNING, "dos_plugin"):
        assert len(point_id(scene(cloud(500)))["coord"]) == 500
        assert len(point_id(scene(cloud(0)))["coord"]) == 1
    assert "far points" not in caplog.text
    with pytest.raises(ValueError, match=r"max_extent must be a number in \(0, inf\), got 0"):
        HOST.TRANSFORMS.build(dict(type="PointId", max_extent=0))


class Pointwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(2, 8)

    def forward(self, data):
        return self.stem(data["feat"])


if "ExtremePointwise" not in HOST.MODELS.module_dict:
    HOST.MODELS.register_module("ExtremePointwise")(Pointwise)


@pytest.mark.parametrize("scope", ["batch", "cloud"])
def test_thousands_of_tiny_clouds(scope):
    """Scenes of three points, all alike: loss and gradients are those of one of them."""
    scenes = 10_000 if scope == "batch" else 300  # the loss of clouds takes them one by one
    generator = torch.Generator().manual_seed(0)
    one = {}
    for view in ("view1", "view2"):
        one |= {
            f"{view}_coord": torch.rand(3, 3, generator=generator),
            f"{view}_grid_coord": torch.eye(3, dtype=torch.long),
            f"{view}_feat": torch.randn(3, 2, generator=generator),
            f"{view}_point_id": torch.tensor([2, 0, 1]),
            f"{view}_visible": torch.tensor([True, True, False]),
            f"{view}_offset": torch.tensor([3]),
        }
    many = {key: value.repeat(scenes, *[1] * (value.dim() - 1)) for key, value in one.items()}
    many |= {key: many[key].cumsum(0) for key in ("view1_offset", "view2_offset")}
    torch.manual_seed(0)
    net = HOST.build_model(
        dict(
            type="DOS-v1m1",
            backbone=dict(type="ExtremePointwise"),
            backbone_out_channels=8,
            up_cast_level=0,
            head=dict(hidden_channels=16, out_channels=8),
            num_prototypes=12,
            min_visible=1,
            sinkhorn=dict(scope=scope),
        )
    )
    outs = [net(batch) for batch in (many, one)]
    grads = [
        torch.cat([g.flatten() for g in torch.autograd.grad(out["loss"], net.student.parameters())])
        for out in outs
    ]
    assert outs[0]["cross_matched"] == outs[1]["cross_matched"] == 1
    torch.testing.assert_close(outs[0]["loss"], outs[1]["loss"], rtol=1e-4, atol=0)
    assert relative_error(*grads) < 1e-3


@pytest.mark.parametrize("points", [1, 3])
def test_more_prototypes_than_points(points):
    student, teacher, prototypes = (unit_rows(i, n, 8) for i, n in enumerate((points, points, 500)))
    leaves = [value.clone().requires_grad_() for value in (student, prototypes)]
    loss = softmap_loss(leaves[0], teacher, leaves[1], prototypes, ZipfSinkhorn(), 0.1, 0.07)
    wanted = [double_leaf(value) for value in (student, prototypes)]
    expected = softmap_loss_reference(wanted[0], teacher, wanted[1], prototypes, 0.1, 0.07)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    found, right = torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, wanted)
    for ours, theirs in zip(found, right):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-6)


class TestBeyondTheIntegersOfFloat32:
    """2**24 + 1 is no float32: whatever counts rows or ids in it loses one."""

    BIG = 2**24

    def test_ids_are_told_apart_and_survive_collate(self):
        ids = self.BIG + torch.arange(1, 6)
        cloud_of = torch.zeros(5, dtype=torch.long)
        perm = torch.tensor([3, 0, 4, 1, 2])
        assert torch.equal(find_points(ids, cloud_of, ids[perm], cloud_of), perm.argsort())
        steps = [dict(type="ToTensor"), dict(type="Collect", keys=("point_id",), feat_keys=())]
        data = dict(coord=np.zeros((5, 3), np.float32), point_id=ids.numpy())
        out = collate_fn([HOST.TRANSFORMS.build(steps[0])(data)])
        assert torch.equal(out["point_id"], ids)

    def test_positions_and_rows(self):
        mask = torch.zeros(self.BIG + 9, dtype=torch.bool)
        mask[[0, 7]] = mask[self.BIG + 1 :: 2] = True
        assert torch.equal(true_positions(mask, int(mask.sum())), mask.nonzero().flatten())
        student_rows = self.BIG + torch.tensor([1, 3, 3])
        found = match_rows(
            student_rows, self.BIG + 4, torch.tensor([2, -1, 0]), self.BIG + torch.tensor([5, 6, 7])
        )
        assert found[self.BIG :].tolist() == [-1, self.BIG + 7, -1, self.BIG + 5]

    def test_offsets_of_a_batch(self):
        cloud_of = torch.tensor([0, 1], dtype=torch.int64).repeat_interleave(
            torch.tensor([self.BIG + 1, 2])
        )
        clouds = Clouds(*[cloud_of] * 6)
        assert clouds.offset(2).tolist() == [self.BIG + 1, self.BIG + 3]


def test_an_id_that_stands_twice_is_matched_with_one_of_its_points():
    in_ids, in_cloud = torch.tensor([5, 7, 5, 5, 9]), torch.tensor([0, 0, 0, 1, 1])
    ids, cloud_of = torch.tensor([5, 5, 5, 7, 9]), torch.tensor([0, 0, 1, 1, 1])
    for far in (0, 2**30):  # by table, by sorting
        found = find_points(ids + far, cloud_of, in_ids + far, in_cloud)
        assert found[0] in (0, 2) and found[1] in (0, 2)
        assert found[2:].tolist() == [3, -1, 4]
