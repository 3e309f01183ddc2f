"""DOS on the host's real backbones. The same assertions hold on every host."""

import pytest
import torch

from dos_plugin import register  # noqa: F401
from dos_plugin.host import HOST
from dos_plugin.models.batch import read_views
from tests.batches import change_hidden, student_activations, view_batch

PTV3 = dict(
    in_channels=2,
    order=("z", "z-trans", "hilbert", "hilbert-trans"),
    stride=(2, 2),
    enc_depths=(1, 1, 1),
    enc_channels=(16, 32, 64),
    enc_num_head=(2, 4, 8),
    enc_patch_size=(32, 32, 32),
    mlp_ratio=2,
    drop_path=0.0,
    shuffle_orders=False,
    enable_flash=False,
)
DECODER = dict(
    dec_depths=(1, 1), dec_channels=(16, 32), dec_num_head=(2, 4), dec_patch_size=(32, 32)
)
SPUNET = dict(
    type="SpUNet-v1m1",
    in_channels=2,
    num_classes=0,
    channels=(8, 16, 16, 16, 16, 16, 16, 8),
    layers=(1,) * 8,
)
# backbone, channels of its features, up_cast_level, rows per point
BACKBONES = {
    "m2 encoder": (dict(PTV3, type="PT-v3m2", enc_mode=True), 96, 1),
    "m2 encoder, full climb": (dict(PTV3, type="PT-v3m2", enc_mode=True), 112, 2),
    "m2 decoder": (dict(PTV3, **DECODER, type="PT-v3m2", enc_mode=False), 16, 0),
    "m1 encoder": (dict(PTV3, type="PT-v3m1", enc_mode=True), 96, 1),
    "m1 decoder": (dict(PTV3, **DECODER, type="PT-v3m1", enc_mode=False), 16, 0),
    "SpUNet": (SPUNET, 8, 0),
}


def build(name, **options):
    torch.manual_seed(0)
    backbone, channels, level = BACKBONES[name]
    options = {
        "backbone": backbone,
        "backbone_out_channels": channels,
        "up_cast_level": level,
        "head": dict(hidden_channels=32, out_channels=16),
        "num_prototypes": 24,
        **options,
    }
    return HOST.build_model(dict(type="DOS-v1m1", **options)).train()


@pytest.mark.parametrize("name", BACKBONES)
def test_a_step_gives_finite_gradients_everywhere(name):
    model = build(name)
    out = model(view_batch((400, 300)))
    out["loss"].backward()
    assert torch.isfinite(out["loss"]) and out["cross_matched"] > 0.3
    for key, parameter in model.student.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name", BACKBONES)
def test_masked_points_leave_every_student_activation_bitwise_the_same(name):
    """Other coordinates, cells, features, ids and counts of masked points: the student is blind."""
    first = view_batch((400, 300))
    second = change_hidden(first)
    before, after = (student_activations(build(name), batch) for batch in (first, second))
    assert len(before) == len(after) > 5
    for one, other in zip(before, after):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["m2 encoder", "m2 decoder", "m1 encoder"])
def test_student_rows_match_teacher_rows_of_the_same_cells(name):
    """Matching by ids gives what matching by grid coordinates would give in the same view."""
    model = build(name)
    batch = view_batch((400, 300))
    outputs = {}
    for branch in ("student", "teacher"):
        getattr(model, branch)["backbone"].register_forward_hook(
            lambda module, args, out, branch=branch: outputs.__setitem__(branch, out)
        )
    student, teacher, same_view, _ = model._embed_and_match(read_views(batch, 1), batch)

    def cells(point, level):
        for _ in range(level):
            point = point["pooling_parent"]
        return torch.cat([point["batch"][:, None], point["grid_coord"]], dim=1)

    level = BACKBONES[name][2]
    student_cells, teacher_cells = (
        cells(outputs["student"], level),
        cells(outputs["teacher"], level),
    )
    assert len(student_cells) == len(student) and len(teacher_cells) == len(teacher)
    pairs = [(s, t) for s, t, _ in same_view]
    assert sum(len(s) for s, _ in pairs) == len(student)  # every student row has its partner
    for s, t in pairs:
        assert torch.equal(student_cells[s], teacher_cells[t])


@pytest.mark.parametrize("name, norms", [("m1 encoder", 3), ("m1 decoder", 7), ("SpUNet", 29)])
def test_a_rank_without_scenes_calls_every_synchronized_norm(name, norms):
    """The other ranks wait in each of them, forward and backward; counted in one process."""
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(build(name)).train()
    calls = []
    for key, module in model.student.named_modules():
        if isinstance(module, torch.nn.SyncBatchNorm):
            module.register_forward_hook(lambda *_, key=key: calls.append(key))
            module.register_full_backward_hook(lambda *_, key=key: calls.append(f"-{key}"))
    seen = []
    for points in ((400, 300), (1, 3)):
        model(view_batch(points))["loss"].backward()
        seen.append(calls[:])
        calls.clear()
    assert seen[0] == seen[1] and len(seen[0]) == 2 * norms
    assert all(buffer.isfinite().all() for buffer in model.student.buffers())


def test_drop_path_of_the_teacher_is_off_and_its_config_untouched():
    # one order only: PT-v3m2 shuffles its orders at every pooling, also in eval mode
    backbone = dict(BACKBONES["m2 encoder"][0], drop_path=0.9, order=("z",))
    model = build("m2 encoder", backbone=backbone, teacher_custom=dict(drop_path=0.0))
    assert backbone["drop_path"] == 0.9
    batch = view_batch((400, 300))
    views = read_views(batch, 1)
    with torch.no_grad():
        one, _ = model.embed(model.teacher, views.clouds, 4)
        two, _ = model.embed(model.teacher, views.clouds, 4)
    assert torch.equal(one, two)


def test_assigned_mass_follows_the_prior_after_some_steps():
    model = build("m2 encoder")
    optimizer = torch.optim.AdamW(model.student.parameters(), 1e-3)
    for step in range(5):
        optimizer.zero_grad()
        model(view_batch((400, 300), seed=step))["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        teacher, _ = model.embed(model.teacher, read_views(view_batch(), 1).clouds, 4)
        prototypes = model.student["prototypes"]().double()
        # the plan from the definition, in float64
        kernel = torch.exp(teacher.double() @ prototypes.T / model.teacher_temp)
        prior = torch.arange(1, 25, dtype=torch.float64) ** -1.3
        prior /= prior.sum()
        u = torch.ones(len(teacher), dtype=torch.float64)
        v = torch.ones(24, dtype=torch.float64)
        for _ in range(3):
            u = 1 / len(teacher) / (kernel @ v)
            v = prior / (kernel.T @ u)
        plan = u[:, None] * kernel * v
        ours = model.sinkhorn(teacher, prototypes.float(), model.teacher_temp) * prior
    torch.testing.assert_close(ours.sum(0), prior, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(ours, plan, atol=1e-9, rtol=1e-3)
    assert (ours.sum(1) * len(teacher)).min() > 0.2  # no point is ignored


@pytest.mark.parametrize("name", ["m2 encoder", "SpUNet"])
def test_the_teachers_sparse_convolutions_alone_are_in_training_mode(name):
    """Only there do they follow autocast; what the teacher says is that of eval mode."""
    from spconv.pytorch.conv import SparseConvolution

    model, batch = build(name), view_batch((400, 300))
    clouds = read_views(batch, 1).clouds
    parts = list(model.teacher.modules())
    assert any(part.training for part in parts)
    assert all(part.training == isinstance(part, SparseConvolution) for part in parts)
    with torch.no_grad():
        torch.manual_seed(1)  # pooling shuffles the curves
        ours, _ = model.embed(model.teacher, clouds, 4)
        torch.manual_seed(1)
        expected, _ = model.eval().embed(model.teacher, clouds, 4)
    assert not any(part.training for part in model.modules())
    assert torch.equal(ours, expected)
