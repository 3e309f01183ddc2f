"""DOS and the segmentor on backbones that the real host has and the embedded one has not.

``DOS_HOST=pointcept PYTHONPATH=<checkout> python -m dos_plugin.cpu -m pytest`` with this file runs
them; docs/backbones.md is the table of what comes out. Backbones that need a CUDA extension for
which dos_plugin.cpu has no stand-in are not in it.
"""

import inspect
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from dos_plugin import register  # noqa: F401
from dos_plugin.commands.inspect import backbone_facts
from dos_plugin.hooks.load import fit_state
from dos_plugin.host import HOST
from dos_plugin.models.backbone import (
    build_backbone,
    frozen,
    keep_orders,
    kept_orders,
    shuffles_at_poolings,
)
from dos_plugin.models.batch import read_views
from dos_plugin.runs.checkpoint import read_checkpoint
from dos_plugin.shipped import config_path, configs_dir
from tests.batches import change_hidden, student_activations, view_batch

PTV3 = dict(
    in_channels=2,
    order=("z", "z-trans"),
    stride=(2, 2),
    enc_depths=(1, 1, 1),
    enc_channels=(6, 12, 24),
    enc_num_head=(1, 2, 2),
    enc_patch_size=(32, 32, 32),
    mlp_ratio=2,
    drop_path=0.0,
    shuffle_orders=False,
)
DECODER = dict(
    enc_mode=False,
    dec_channels=(12, 12),
    dec_num_head=(2, 2),
    dec_patch_size=(32, 32),
)
M3 = dict(PTV3, type="PT-v3m3", enable_flash=False, rope_base=10, enc_mode=True)
LITE = dict(
    PTV3,
    type="LitePT-v1",
    enc_conv=(True, True, False),
    enc_attn=(False, False, True),
    enc_rope_freq=(100.0, 100.0, 100.0),
    enc_mode=True,
)
LITE_DECODER = dict(
    DECODER,
    dec_depths=(0, 0),
    dec_conv=(False, False),
    dec_attn=(False, False),
    dec_rope_freq=(100.0, 100.0),
)
UNET = dict(in_channels=2, channels=(8, 16, 16, 16, 16, 16, 16, 8), layers=(1,) * 8)
UNET_M3 = dict(UNET, type="SpUNet-v1m3", norm_adaptive=False, norm_affine=True, zero_init=False)
OACNN = dict(
    type="OACNNs",
    in_channels=2,
    num_classes=12,
    embed_channels=8,
    enc_num_ref=[4, 4],
    enc_channels=[8, 16],
    groups=[2, 4],
    enc_depth=[1, 1],
    down_ratio=[2, 2],
    dec_channels=[12, 16],
    point_grid_size=[[4, 8], [2, 4]],
    dec_depth=[1, 1],
)
PTV2 = dict(
    in_channels=2,
    num_classes=0,
    patch_embed_channels=16,
    patch_embed_groups=2,
    enc_depths=(1, 1),
    enc_channels=(32, 64),
    enc_groups=(4, 8),
    enc_neighbours=(8, 8),
    dec_depths=(1, 1),
    dec_channels=(16, 32),
    dec_groups=(2, 4),
    dec_neighbours=(8, 8),
    grid_sizes=(1.0, 2.0),
)
KINDS = ("streets", "rooms")
CONDITION = ("condition",)
# backbone, channels of its features, up_cast_level, what it reads further
BACKBONES = {
    "PT-v3m3 encoder": (M3, 36, 1, None),
    "PT-v3m3 decoder": (dict(M3, **DECODER, dec_depths=(1, 1)), 12, 0, None),
    "LitePT encoder": (LITE, 36, 1, None),
    "LitePT decoder": (dict(LITE, **LITE_DECODER), 12, 0, None),
    "SpUNet-v1m2": (dict(UNET, type="SpUNet-v1m2", num_classes=0), 8, 0, None),
    "SpUNet-v1m3": (dict(UNET_M3, conditions=KINDS[:1]), 8, 0, CONDITION),
    "SpUNetNoSkipBase": (dict(UNET, type="SpUNetNoSkipBase", out_channels=8), 8, 0, None),
    "OACNNs": (OACNN, 12, 0, None),
    "PT-v1": (dict(type="PointTransformer-Seg26", in_channels=5, num_classes=8), 8, 0, None),
    "PT-v2m1": (dict(PTV2, type="PT-v2m1"), 16, 0, None),
    "PT-v2m2": (dict(PTV2, type="PT-v2m2"), 16, 0, None),
    "PT-v2m3": (
        dict(PTV2, type="PT-v2m3", conditions=KINDS[:1], norm_adaptive=False, norm_affine=True),
        16,
        0,
        CONDITION,
    ),
}
NORMED = ("SpUNet-v1m2", "SpUNet-v1m3", "SpUNetNoSkipBase", "OACNNs")
HIERARCHICAL = ("PT-v3m3 encoder", "LitePT encoder")

if HOST.name == "minihost":
    pytest.skip(
        "the backbones of the embedded host are PTv3 and SpUNet: see test_dos_model.py; "
        "DOS_HOST=pointcept runs the others",
        allow_module_level=True,
    )


def needs_packages(name):
    """Skip where a package is absent that the host's backbone calls."""
    if name.startswith("PT-v"):
        import einops

        if einops.__spec__.origin == "dos_plugin.cpu" and name.startswith(("PT-v1", "PT-v2")):
            pytest.skip(f"{name} calls einops, which is not installed: pip install einops")
    if name == "OACNNs" or name.startswith("PT-v2"):
        module = sys.modules["torch_geometric.nn.pool"].voxel_grid.__module__
        if module.startswith("torch_geometric") and "pyg_lib" not in sys.modules:
            pytest.skip(
                f"{name} calls voxel_grid, for which torch_geometric needs pyg-lib: install it, "
                "or run with --stand-ins torch_geometric"
            )


def scenes(name, points=(700, 600), seed=0):
    """A batch for a backbone: its number of channels, and the kind of its scenes."""
    backbone = BACKBONES[name][0]
    batch = view_batch(points, seed, backbone["in_channels"], mask_ratio=0.3)
    return {**batch, "condition": ["streets"] * len(points)}


def build(name, **options):
    needs_packages(name)
    torch.manual_seed(0)
    backbone, channels, level, keys = BACKBONES[name]
    model = dict(
        type="DOS-v1m1",
        backbone=backbone,
        backbone_out_channels=channels,
        up_cast_level=level,
        head=dict(hidden_channels=16, out_channels=8),
        num_prototypes=24,
        backbone_keys=keys,
    )
    return HOST.build_model({**model, **options}).train()


@pytest.mark.parametrize("name", BACKBONES)
def test_two_steps_train_every_parameter(name):
    model, batch = build(name), scenes(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.student.parameters(), 1e-3)
    model.total_steps = 4
    for _ in range(2):
        optimizer.zero_grad()
        out = model(batch)
        out["loss"].backward()
        for key, parameter in model.student.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
        optimizer.step()
        model.after_optimizer_step()
    assert torch.isfinite(out["loss"]) and out["loss"] > 0 and out["cross_matched"] > 0.3
    for key, parameter in model.student.named_parameters():
        assert not torch.equal(parameter, before[f"student.{key}"]), key
        moved = model.teacher.state_dict().get(key, None)
        assert moved is None or not torch.equal(moved, before[f"teacher.{key}"]), key


@pytest.mark.parametrize("name", BACKBONES)
def test_masked_points_leave_every_student_activation_bitwise_the_same(name):
    first = scenes(name)
    before, after = (student_activations(build(name), b) for b in (first, change_hidden(first)))
    assert len(before) == len(after) > 5
    for one, other in zip(before, after):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", BACKBONES)
def test_rows_of_features_are_those_of_the_points(name):
    """Points in another order have their features in that order."""
    model = build(name)
    keep_orders(model.teacher["backbone"])
    clouds = read_views(scenes(name), 1, BACKBONES[name][3] or ()).clouds
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(clouds.coord.shape, generator=generator)  # no two neighbours equally far
    clouds = clouds._replace(coord=clouds.coord + 0.2 * noise)
    key = torch.rand(len(clouds.cloud), generator=generator)
    key[clouds.offset(4)[:-1]] = key[0] = 0  # PT-v1 starts to sample at the first point of a cloud
    mixed = torch.argsort(clouds.cloud + key)
    assert (mixed != torch.arange(len(mixed))).float().mean() > 0.9
    with torch.no_grad():
        feat, row = model.embed(model.teacher, clouds, 4)
        other, other_row = model.embed(model.teacher, clouds.select(mixed), 4)
    expected = feat[row][mixed]
    assert (expected.std(0) > 0.01).any()  # the points' features differ
    torch.testing.assert_close(other[other_row], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", HIERARCHICAL)
def test_student_rows_match_teacher_rows_of_the_same_cells(name):
    """Matching by ids gives what matching by grid coordinates would give in the same view."""
    model, batch = build(name), scenes(name)
    outputs = {}
    for branch in ("student", "teacher"):
        getattr(model, branch)["backbone"].register_forward_hook(
            lambda module, args, out, branch=branch: outputs.__setitem__(branch, out)
        )
    student, teacher, same_view, _ = model._embed_and_match(read_views(batch, 1), batch)
    cells = {}
    for branch, point in outputs.items():
        point = point["pooling_parent"]
        cells[branch] = torch.cat([point["batch"][:, None], point["grid_coord"]], dim=1)
    assert len(cells["student"]) == len(student) and len(cells["teacher"]) == len(teacher)
    assert sum(len(pairs.student) for pairs in same_view) == len(student)
    for pairs in same_view:
        assert torch.equal(cells["student"][pairs.student], cells["teacher"][pairs.teacher])


@pytest.mark.parametrize("name", ["LitePT encoder", "LitePT decoder", *NORMED])
def test_a_rank_without_scenes_calls_every_synchronized_norm(name):
    """The other ranks wait in each of them, forward and backward; counted in one process."""
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(build(name)).train()
    calls = []
    for key, module in model.student.named_modules():
        if isinstance(module, torch.nn.SyncBatchNorm):
            module.register_forward_hook(lambda *_, key=key: calls.append(key))
            module.register_full_backward_hook(lambda *_, key=key: calls.append(f"-{key}"))
    seen = []
    for points in ((400, 300), (1, 3)):
        model(scenes(name, points))["loss"].backward()
        seen.append(calls[:])
        calls.clear()
    assert seen[0] == seen[1] and len(seen[0]) >= 2 * 3
    assert all(buffer.isfinite().all() for buffer in model.student.buffers())


SERIALIZED = [name for name in BACKBONES if name.startswith(("PT-v3", "LitePT"))]


@pytest.mark.parametrize("name", SERIALIZED)
def test_frozen_features_are_the_same_each_time(name):
    """The host permutes curves at every pooling, whatever its option says; probes need it not."""
    backbone = dict(BACKBONES[name][0], shuffle_orders=True, drop_path=0.5)
    assert shuffles_at_poolings(backbone) and kept_orders(backbone)["shuffle_orders"] is False
    torch.manual_seed(0)
    model = frozen(build_backbone(dict(model=dict(backbone=backbone))))
    batch = scenes(name)
    inputs = {key: batch[f"view1_{key}"] for key in ("coord", "grid_coord", "feat", "offset")}
    one, other = (model(dict(inputs))["feat"] for _ in range(2))
    assert torch.equal(one, other)
    assert not any(getattr(module, "shuffle_orders", False) for module in model.modules())


@pytest.mark.parametrize("name", SERIALIZED)
def test_inspect_knows_type_and_widths(name):
    backbone = BACKBONES[name][0]
    model = HOST.build_model(backbone)
    facts = backbone_facts(model.state_dict())
    assert facts.type == backbone["type"] and facts.in_channels == 2
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert facts.enc_channels == [6, 12, 24]
    decoder = not backbone["enc_mode"]
    assert facts.dec_channels == ([12, 12] if decoder else None)
    assert facts.out_channels == (12 if decoder else 6 + 12 + 24)


# what a pretraining with the backbone is fine-tuned with: backbone, channels
FINE_TUNED = {
    **{name: (BACKBONES[name][0], BACKBONES[name][1]) for name in BACKBONES},
    "PT-v3m3 encoder": (BACKBONES["PT-v3m3 decoder"][0], 12),
    "LitePT encoder": (BACKBONES["LitePT decoder"][0], 12),
}


def segmentor(name, freeze_backbone):
    backbone, channels = FINE_TUNED[name]
    return HOST.build_model(
        dict(
            type="DOS-Segmentor-v1m1",
            backbone=backbone,
            backbone_out_channels=channels,
            num_classes=3,
            criteria=[dict(type="CrossEntropyLoss", loss_weight=1.0, ignore_index=-1)],
            freeze_backbone=freeze_backbone,
            backbone_keys=BACKBONES[name][3],
        )
    )


@pytest.mark.parametrize("freeze", [False, "encoder", True], ids=["ft", "dec", "lin"])
@pytest.mark.parametrize("name", FINE_TUNED)
def test_the_checkpoint_fine_tunes(name, freeze, tmp_path):
    """All of the backbone is found in it, but for a decoder; what is to train does, and no more."""
    pretrained = build(name)
    torch.save(dict(epoch=1, state_dict=pretrained.state_dict()), tmp_path / "model_last.pth")
    model = segmentor(name, freeze)
    own = model.state_dict(keep_vars=True)
    if freeze is True and name in HIERARCHICAL:  # a decoder that was never trained is not frozen
        with pytest.raises(ValueError, match="dec"):
            fit_state(own, read_checkpoint(tmp_path / "model_last.pth"), "student")
        return
    fit = fit_state(own, read_checkpoint(tmp_path / "model_last.pth"), "student")
    assert not [key for key in fit.unexpected if "backbone" in key]
    decoder = "backbone.dec." if name in HIERARCHICAL else "seg_head."
    assert all(key.startswith(("seg_head.", decoder)) for key in fit.missing)
    model.load_state_dict(fit.weight, strict=False)

    batch = {k.removeprefix("view1_"): v for k, v in scenes(name).items() if "view2" not in k}
    batch["segment"] = torch.arange(len(batch["feat"])) % 3
    loss = model.train()(batch)["loss"]
    loss.backward()
    trained = {key for key, p in model.named_parameters() if p.grad is not None}
    assert torch.isfinite(loss)
    parts = {key.split(".")[1] for key in trained if key.startswith("backbone.")}
    everything = {key for key, _ in model.named_parameters()}
    if freeze is False:
        assert trained == everything
    elif freeze is True:
        assert parts == set() and "seg_head.weight" in trained
    else:
        assert parts and not any(
            part.startswith(("enc", "embedding", "conv", "stem")) for part in parts
        )


@pytest.mark.parametrize("name", ["5-nuscenes-pt-v3m3", "6-nuscenes-litept"])
def test_the_page_fine_tunes_what_the_config_pretrains(name, tmp_path):
    """The segmentation config that docs/backbones.md shows, in the folder of the configs."""
    page = Path(__file__).parents[2] / "docs" / "backbones.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    (text,) = [block for block in blocks if f"pretrain-dos-v1m1-{name}/" in block]
    shutil.copytree(configs_dir() / "_base_", tmp_path / "_base_")
    (tmp_path / "config.py").write_text(text)
    tuned = HOST.Config.fromfile(str(tmp_path / "config.py"))
    pretrained = HOST.Config.fromfile(str(config_path(f"pretrain-dos-v1m1-{name}")))
    defaults = inspect.signature(HOST.MODELS.get(tuned.model.backbone.type).__init__).parameters
    for key in {"rope_base", "order", "stride", "enc_depths", "enc_rope_freq"} & set(defaults):
        one, other = (c.model.backbone.get(key, defaults[key].default) for c in (tuned, pretrained))
        assert list(one) == list(other) if isinstance(one, (tuple, list)) else one == other, key
    for config in (tuned, pretrained):  # widths as they are, and of the depth what tells stages
        config.model.backbone.enc_depths = (1,) * 5
    model = HOST.build_model(tuned.model)
    ours, theirs = (
        {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
        for backbone in (HOST.build_model(pretrained.model.backbone), model.backbone)
    )
    assert len(ours) > 50 and ours.items() <= theirs.items()
    added = theirs.keys() - ours.keys()
    assert added and all(key.startswith("dec.") for key in added)
    assert model.backbone.dec.dec0.up.proj[0].out_features == tuned.model.backbone_out_channels


def test_scenes_of_two_kinds_in_a_batch_are_named():
    """The norms of SpUNet-v1m3 are those of one data set for all scenes of a batch."""
    model, batch = build("SpUNet-v1m3"), scenes("SpUNet-v1m3")
    with pytest.raises(ValueError, match="'condition' holds streets, rooms, expected the same"):
        model({**batch, "condition": list(KINDS)})
    del batch["condition"]
    with pytest.raises(KeyError, match="'condition' is missing, which model.backbone_keys asks"):
        model(batch)
