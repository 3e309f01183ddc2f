"""DOS-v1m1 with a toy backbone: what it shows to whom, how it lives in a trainer, bad batches."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dos_plugin import messages, register
from dos_plugin.host import HOST
from dos_plugin.method import ema_update, matching
from dos_plugin.models.batch import read_views
from tests.batches import view_batch


class Toy(nn.Module):
    """Features of a point: a linear map of its own and of the mean of its cloud."""

    def __init__(self, in_channels=2, channels=8, mask_token=False):
        super().__init__()
        self.stem = nn.Linear(in_channels, channels)
        self.norm = nn.BatchNorm1d(channels)
        self.token = nn.Parameter(torch.zeros(channels)) if mask_token else None
        self.inputs = []

    def forward(self, data):
        self.inputs.append(data)
        feat = self.norm(self.stem(data["feat"]))
        if "mask" in data:
            feat = torch.where(data["mask"][:, None], self.token, feat)
        counts = torch.diff(data["offset"], prepend=data["offset"].new_zeros(1)).tolist()
        means = [part.mean(0, keepdim=True).expand_as(part) for part in feat.split(counts)]
        return feat + torch.cat(means) + data["coord"].mean() + data["grid_coord"].sum() * 1e-3


if "Toy" not in HOST.MODELS.module_dict:
    HOST.MODELS.register_module("Toy")(Toy)


def build(seed=0, **options):
    torch.manual_seed(seed)
    options = {
        "backbone": dict(type="Toy"),
        "backbone_out_channels": 8,
        "up_cast_level": 0,
        "head": dict(hidden_channels=16, out_channels=8),
        "num_prototypes": 12,
        **options,
    }
    return HOST.build_model(dict(type="DOS-v1m1", **options)).train()


VARIANTS = {
    "default": {},
    "cloud": dict(sinkhorn=dict(scope="cloud")),
    "ema prototypes": dict(teacher_prototypes="ema"),
    "uniform": dict(sinkhorn=dict(alpha=0.0)),
    "clustering": dict(target="clustering"),
    "regression": dict(target="regression"),
    "mask token": dict(student_input="mask_token", backbone=dict(type="Toy", mask_token=True)),
    "jitter": dict(
        student_input="mask_token", mask_jitter=0.3, backbone=dict(type="Toy", mask_token=True)
    ),
}


def test_registering_twice_is_harmless_and_a_taken_name_is_an_error():
    register.register()
    original = HOST.MODELS.module_dict["DOS-v1m1"]
    try:
        HOST.MODELS.module_dict["DOS-v1m1"] = Toy
        with pytest.raises(KeyError, match=r"'DOS-v1m1' in MODELS .* taken by .*Toy.*DOS"):
            register.register()
    finally:
        HOST.MODELS.module_dict["DOS-v1m1"] = original


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_the_gradient_of_its_loss(name):
    """Backbone and head, along a direction, against finite differences: targets hang on neither."""
    model, batch = build(**VARIANTS[name]), view_batch()
    torch.manual_seed(1)  # of the jitter
    out = model(batch)
    assert set(out) == {"loss", "same_view_loss", "cross_view_loss", "cross_matched", "feat_std"}
    assert all(value.ndim == 0 and torch.isfinite(value) for value in out.values())
    expected = 0.5 * (out["same_view_loss"] + out["cross_view_loss"])
    torch.testing.assert_close(out["loss"].detach(), expected)
    out["loss"].backward()
    for key, parameter in model.student.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
    assert all(parameter.grad is None for parameter in model.teacher.parameters())
    moved = [p for key, p in model.student.named_parameters() if not key.startswith("prototypes")]
    norm = torch.stack([p.grad.norm() for p in moved]).norm()
    direction = [p.grad / norm for p in moved]
    losses, step = [], 1e-3
    for move in (step, -2 * step):
        torch._foreach_add_([p.data for p in moved], direction, alpha=move)
        torch.manual_seed(1)
        losses.append(model(batch)["loss"].item())
    assert norm > 0.01
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(norm.item(), rel=0.01)


class TestNoLeak:
    """The student's input holds nothing of a masked point."""

    def student_inputs(self, batch):
        model = build()
        out = model(batch)
        (inputs,) = model.student["backbone"].inputs
        return inputs, out

    def test_input_is_exactly_the_visible_points(self):
        batch = view_batch()
        inputs, _ = self.student_inputs(batch)
        for key in ("coord", "grid_coord", "feat"):
            visible = [batch[f"{v}_{key}"][batch[f"{v}_visible"]] for v in ("view1", "view2")]
            assert torch.equal(inputs[key], torch.cat(visible))
        assert "mask" not in inputs

    def test_further_keys_are_those_of_the_visible_points(self):
        """A key of each point, and one of the batch; a scene that is left out takes its rows."""
        batch = view_batch((200, 10, 150))
        for view in ("view1", "view2"):
            batch[f"{view}_normal"] = batch[f"{view}_coord"] + batch[f"{view}_feat"][:, :1]
        batch["condition"] = ["streets"] * 3
        model = build(backbone_keys=["normal", "condition"])
        model(batch)
        (inputs,) = model.student["backbone"].inputs
        assert len(inputs["coord"]) > 100 and inputs["condition"] == ["streets"]
        assert torch.equal(inputs["normal"], inputs["coord"] + inputs["feat"][:, :1])
        (inputs,) = model.teacher["backbone"].inputs
        assert len(inputs["coord"]) == 2 * (200 + 150) and inputs["condition"] == ["streets"]
        assert torch.equal(inputs["normal"], inputs["coord"] + inputs["feat"][:, :1])

    def test_gradient_of_the_student_with_respect_to_masked_inputs_is_zero(self):
        batch = view_batch()
        leaves = [
            batch[f"{v}_{key}"].requires_grad_()
            for v in ("view1", "view2")
            for key in ("coord", "feat")
        ]
        model = build()
        student, _ = model.embed(model.student, *self.student_clouds(model, batch))
        grads = torch.autograd.grad(student.square().sum() + student.sum(), leaves)
        for grad, view in zip(grads, ["view1"] * 2 + ["view2"] * 2):
            visible = batch[f"{view}_visible"]
            assert torch.count_nonzero(grad[~visible]) == 0
            assert grad[visible].abs().max() > 0

    @staticmethod
    def student_clouds(model, batch):
        clouds, num_scenes, _ = read_views(batch, 1)
        return clouds.select(clouds.visible), 2 * num_scenes


class Pointwise(nn.Module):
    """A backbone that never makes the host wait for the device."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(2, 8)

    def forward(self, data):
        return self.stem(data["feat"])


if "Pointwise" not in HOST.MODELS.module_dict:
    HOST.MODELS.register_module("Pointwise")(Pointwise)


class Waits(TorchDispatchMode):
    """Notes what would make a host wait for its GPU: results whose size or value it must know."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "equal")

    def __init__(self, monkeypatch):
        super().__init__()
        self.seen: list[str] = []
        tolist = torch.Tensor.tolist
        monkeypatch.setattr(
            torch.Tensor, "tolist", lambda tensor: self.seen.append("tolist") or tolist(tensor)
        )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (args[1] if isinstance(args[1], list | tuple) else [])
        )
        repeat = name == "repeat_interleave" and kwargs.get("output_size") is None
        if by_mask or repeat or name.lstrip("_").startswith(self.NAMES) or name in self.NAMES:
            self.seen.append(name)
        return func(*args, **kwargs)


def test_a_step_waits_twice_for_the_device(monkeypatch):
    """Once for the sizes of the batch, once for the numbers of matched rows."""
    model, batch = build(backbone=dict(type="Pointwise")), view_batch()
    monkeypatch.setattr(matching, "_find_in_table", lambda *_: None)  # for CPUs only
    with Waits(monkeypatch) as waits:
        model(batch)["loss"].backward()
        ema_update(model.teacher, model.student, 0.9)
    assert waits.seen == ["tolist", "tolist"]
    with waits:  # it does notice
        batch["view1_feat"][batch["view1_visible"]].sum().item()
    assert len(waits.seen) == 4


def test_teacher_sees_every_point_and_stays_in_eval_mode():
    model, batch = build(), view_batch()
    model.train()
    assert model.student.training and not any(m.training for m in model.teacher.modules())
    model(batch)
    (inputs,) = model.teacher["backbone"].inputs
    assert len(inputs["feat"]) == len(batch["view1_feat"]) + len(batch["view2_feat"])


def test_clouds_of_a_batch_are_matched_within_their_scene():
    """With features that name scene and id, matched rows of teacher and student must agree."""
    model = build(target="regression")
    seen = []
    model.pair_loss = lambda student, teacher, scene: (
        seen.append((student, teacher, scene)) or (student.sum() * 0)
    )
    model.embed = lambda branch, clouds, n: (
        torch.stack([clouds.cloud % 3, clouds.point_id], 1).float(),
        torch.arange(len(clouds.cloud)),
    )
    batch = view_batch((120, 60, 90))
    model(batch)
    assert len(seen) == 4
    for student, teacher, scene in seen:
        assert len(student) > 0
        assert torch.equal(student, teacher)
        assert torch.equal(student[:, 0].long(), scene)
    shared = sum(
        len(
            set(batch["view1_point_id"][a:b][batch["view1_visible"][a:b]].tolist())
            & set(batch["view2_point_id"][a:b].tolist())
        )
        for a, b in ((0, 120), (120, 180), (180, 270))
    )
    assert len(seen[2][0]) == shared  # cross view, first view's student


class TestTrainerLife:
    """EMA and schedules follow optimizer steps, not batches."""

    def trainer(self, model, total_steps=10, start=0):
        optimizer = torch.optim.SGD(model.student.parameters(), 0.1)
        scheduler = SimpleNamespace(last_epoch=start)
        cfg = SimpleNamespace(scheduler=SimpleNamespace(total_steps=total_steps))
        return SimpleNamespace(optimizer=optimizer, scheduler=scheduler, cfg=cfg, writer=None)

    def test_accumulation_and_skipped_steps(self):
        model = build(momentum_base=0.5, momentum_final=0.5)
        model.trainer = self.trainer(model)
        model.before_train()
        before = copy.deepcopy(model.teacher.state_dict())
        for _ in range(3):  # micro-steps without an optimizer step
            model.before_step()
            model(view_batch())["loss"].backward()
            model.after_step()
        assert model.step == 0
        for key, value in model.teacher.state_dict().items():
            assert torch.equal(value, before[key])
        model.trainer.optimizer.step()
        assert model.step == 1
        for key, value in model.teacher.named_parameters():
            expected = 0.5 * before[key] + 0.5 * model.student.get_parameter(key)
            torch.testing.assert_close(value, expected)
        buffers = dict(model.student.named_buffers())
        for key, value in model.teacher.named_buffers():
            assert torch.equal(value, buffers[key])

    def test_schedules_are_functions_of_the_step_and_survive_resuming(self):
        model = build(teacher_temp_warmup_ratio=0.5)
        model.trainer = self.trainer(model)
        model.before_train()
        values = [(model.teacher_temp, model.momentum)]
        for _ in range(10):
            model.trainer.optimizer.step()
            values.append((model.teacher_temp, model.momentum))
        temps, momenta = zip(*values)
        assert temps[0] == 0.04 and temps[5:] == (0.07,) * 6
        assert temps[1] == pytest.approx(0.046)
        assert momenta[0] == pytest.approx(0.994) and momenta[10] == 1.0
        assert momenta[5] == pytest.approx(0.997)
        resumed = build(teacher_temp_warmup_ratio=0.5)
        resumed.trainer = self.trainer(resumed, start=4)
        resumed.before_train()
        assert (resumed.teacher_temp, resumed.momentum) == values[4]


class TestDegenerateBatches:
    @pytest.mark.parametrize("name", VARIANTS)
    @pytest.mark.parametrize("bad", ["all masked", "tiny", "every scene tiny"])
    def test_finite_loss_and_a_counted_warning(self, name, bad, caplog):
        sizes = {"all masked": (200, 150), "tiny": (200, 1), "every scene tiny": (1, 3)}[bad]
        batch = view_batch(sizes)
        if bad == "all masked":
            batch["view1_visible"][200:] = False
        model = build(**VARIANTS[name])
        with caplog.at_level(logging.WARNING, "dos_plugin"):
            out = model(batch)
        out["loss"].backward()
        assert torch.isfinite(out["loss"])
        for key, parameter in model.student.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key

    def test_the_warning_names_the_scene(self, caplog):
        messages._counts.clear()
        with caplog.at_level(logging.WARNING, "dos_plugin"):
            build()(view_batch((200, 1)))
        assert "['scene1']" in caplog.text and "fewer than 16 visible points" in caplog.text

    def test_a_small_scene_changes_nothing_for_the_others(self):
        both, alone = view_batch((200, 3)), view_batch((200, 3))
        for view in ("view1", "view2"):
            for key in ("coord", "grid_coord", "feat", "point_id", "visible", "offset"):
                value = alone[f"{view}_{key}"]
                alone[f"{view}_{key}"] = value[:1] if key == "offset" else value[:200]
        assert torch.equal(build()(both)["loss"], build()(alone)["loss"])

    def test_nothing_masked(self):
        batch = view_batch()
        batch["view1_visible"][:] = batch["view2_visible"][:] = True
        assert torch.isfinite(build()(batch)["loss"])

    def test_no_point_in_common(self):
        batch = view_batch()
        batch["view2_point_id"] += 10_000
        out = build()(batch)
        assert out["cross_matched"] == 0 and out["cross_view_loss"] == 0
        assert torch.isfinite(out["loss"])


@pytest.mark.parametrize("key", ["view1_coord", "view2_visible", "view2_offset", "view1_point_id"])
def test_a_missing_batch_key_is_named(key):
    batch = view_batch()
    del batch[key]
    with pytest.raises(KeyError, match=f"batch key '{key}' is missing; add it to Collect"):
        build()(batch)


def test_rows_that_disagree_are_named():
    batch = view_batch()
    batch["view2_feat"] = batch["view2_feat"][:-1]
    with pytest.raises(ValueError, match=r"'view2_feat' has 349 rows, 'view2_coord' has 350"):
        build()(batch)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(num_prototypes=1), "num_prototypes must be a whole number of at least 2, got 1"),
        (dict(sinkhorn=dict(alpha=-1.0)), "alpha must be a number in .*, got -1"),
        (dict(sinkhorn=dict(alpha=float("nan"))), "alpha .* got nan"),
        (dict(student_temp=0.0), "student_temp must be a number in .*, got 0"),
        (dict(teacher_temp_start=-1.0), "teacher_temp_start"),
        (dict(target="softmax"), r"target must be one of .* got 'softmax'"),
        (dict(teacher_prototypes="own"), "teacher_prototypes"),
        (dict(student_input="mask_token"), "backbone.mask_token=False contradicts"),
        (dict(mask_jitter=0.1), "mask_jitter=0.1 needs student_input='mask_token'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_wrong_channels_and_levels_are_named():
    with pytest.raises(ValueError, match="backbone_out_channels=9, but .* have 8 channels"):
        build(backbone_out_channels=9)(view_batch())
    with pytest.raises(ValueError, match="up_cast_level=2, but the backbone's output has 0"):
        build(up_cast_level=2)(view_batch())
