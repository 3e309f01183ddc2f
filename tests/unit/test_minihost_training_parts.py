"""Optimizers, schedules, checkpoints and storage of the embedded host."""

import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dos_plugin.minihost import HOOKS
from dos_plugin.minihost.checkpoint import (
    check_fit,
    load_checkpoint,
    rename_keys,
    save_checkpoint,
)
from dos_plugin.minihost.hooks import build_hooks
from dos_plugin.minihost.optim import build_optimizer, build_scheduler, cosine, named_trainable
from dos_plugin.minihost.storage import EventStorage


class Renamed(nn.Module):
    """Keeps its layer under another name than its state dict does."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.register_state_dict_post_hook(self._rename)

    @staticmethod
    def _rename(module, state, prefix, _):
        for key in ("weight", "bias"):
            state[f"{prefix}enc.block0.{key}"] = state.pop(f"{prefix}inner.{key}")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Renamed()
        self.head = nn.Linear(2, 3)
        self.frozen = nn.Linear(2, 3).requires_grad_(False)


def test_names_are_those_of_the_checkpoint():
    names = [name for name, _ in named_trainable(Net())]
    assert names == [
        "backbone.enc.block0.weight", "backbone.enc.block0.bias", "head.weight", "head.bias"
    ]  # fmt: skip


def test_parameter_groups():
    net = Net()
    entries = [
        dict(keyword="block0.", lr=0.5),
        dict(keyword="bias", weight_decay=0.0),
        dict(keyword="nothing"),
    ]
    config = dict(type="AdamW", lr=0.1, weight_decay=0.3)
    optimizer = build_optimizer(config, net, entries)
    members = [group["params"] for group in optimizer.param_groups]
    assert members[0] == [net.head.weight]
    assert members[1] == [net.backbone.inner.weight, net.backbone.inner.bias]  # first match wins
    assert members[2] == [net.head.bias] and members[3] == []
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5, 0.1, 0.1]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.3, 0.0, 0.3]
    assert config == dict(type="AdamW", lr=0.1, weight_decay=0.3)
    everything = build_optimizer(dict(type="SGD", lr=0.1), net)
    assert len(everything.param_groups[0]["params"]) == 6
    with pytest.raises(KeyError, match="no keyword"):
        build_optimizer(config, net, [dict(lr=1.0)])


def rates(config, steps, groups=1):
    parameters = [dict(params=[nn.Parameter(torch.zeros(1))]) for _ in range(groups)]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    scheduler = build_scheduler(dict(config, total_steps=steps), optimizer)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[-1]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_schedules():
    one = rates(dict(type="OneCycleLR", max_lr=[1, 2], div_factor=10, pct_start=0.5), 10, groups=2)
    assert one[0] == pytest.approx(0.2) and max(one) == pytest.approx(2) == one[4]
    assert one[-1] < 1e-4


@pytest.mark.parametrize(
    "config, steps, message",
    [
        (dict(pct_start=0.05), 20, r"pct_start \(0.05\) x total_steps \(20\)"),
        (dict(pct_start=0.5), 2, "must not be 0, 1"),
        (dict(pct_start=0.0), 10, "must not be 0"),
        (dict(max_lr=[1, 2, 3]), 10, "max_lr has 3 values, but there are 1 parameter groups"),
    ],
)
def test_one_cycle_says_what_is_wrong(config, steps, message):
    with pytest.raises(ValueError, match=message):
        rates(dict(dict(type="OneCycleLR", max_lr=1.0), **config), steps)


def test_cosine():
    assert cosine(0, 10, 0.04, 0.2) == pytest.approx(0.04)
    assert cosine(5, 10, 0.04, 0.2) == pytest.approx(0.12)
    assert cosine(10, 10, 0.04, 0.2) == cosine(99, 10, 0.04, 0.2) == 0.2


def test_storage():
    storage = EventStorage()
    storage.put_scalar("loss", 1.0)
    storage.put_scalar("loss", 4.0, n=2)
    history = storage.history("loss")
    assert (history.val, history.avg, history.total, history.count) == (4.0, 3.0, 9.0, 3)
    storage.reset_histories()
    assert storage.history("loss").count == 0
    with pytest.raises(KeyError, match="'gone'"):
        storage.history("gone")


def test_checkpoints_are_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "model_last.pth"
    save_checkpoint(dict(state_dict=dict(a=torch.ones(1)), metric=np.float64(0.5)), path)
    with pytest.raises(Exception, match=r"pickle|lambda"):
        save_checkpoint(dict(state_dict=lambda: 0), path)
    assert [p.name for p in tmp_path.iterdir()] == ["model_last.pth"]
    loaded = load_checkpoint(str(path), torch.device("cpu"))
    assert torch.equal(loaded["state_dict"]["a"], torch.ones(1)) and loaded["metric"] == 0.5


class Payload:
    def __reduce__(self):
        return print, ("executed",)


def test_bad_checkpoints_are_named(tmp_path, capsys):
    device = torch.device("cpu")
    with pytest.raises(FileNotFoundError, match=r"gone.pth"):
        load_checkpoint(str(tmp_path / "gone.pth"), device)
    good = tmp_path / "good.pth"
    save_checkpoint(dict(state_dict={}), good)
    contents = dict(text=b"hello", empty=b"", cut=good.read_bytes()[:300])
    for name, content in contents.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"cannot read .*{name}.pth"):
            load_checkpoint(str(path), device)
    save_checkpoint(dict(state_dict={}, hidden=Payload()), good)
    with pytest.raises(ValueError, match="cannot read"):
        load_checkpoint(str(good), device)
    assert "executed" not in capsys.readouterr().out
    save_checkpoint(dict(epoch=1), good)
    with pytest.raises(ValueError, match="no state_dict"):
        load_checkpoint(str(good), device)


def test_rename_keys():
    state = {"student.backbone.a": 1, "module.student.backbone.b": 2, "teacher.backbone.a": 3}
    renamed, meant = rename_keys(state, "module.student.backbone", "module.backbone", False)
    assert renamed == {"backbone.a": 1, "backbone.b": 2, "teacher.backbone.a": 3}
    assert meant == {"backbone.a", "backbone.b"}
    renamed, _ = rename_keys(state, "", "", True)
    assert set(renamed) == {
        "module.student.backbone.a", "module.student.backbone.b", "module.teacher.backbone.a"
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"replacement \('backbone'\) must keep 'module.'"):
        rename_keys(state, "module.student.backbone", "backbone", False)


def fit(own, weight, meant=None, strict=False):
    own = {key: torch.zeros(size) for key, size in own.items()}
    weight = {key: torch.zeros(size) for key, size in weight.items()}
    return check_fit(own, weight, set(weight) if meant is None else meant, "c.pth", strict)


def test_weights_that_fit():
    model = {"backbone.a.weight": 2, "backbone.b.weight": 2, "head.weight": 3}
    student = {"backbone.a.weight": 2, "backbone.b.weight": 2, "teacher.a.weight": 2, "x.bias": 1}
    missing, unexpected = fit(model, student, meant={"backbone.a.weight", "backbone.b.weight"})
    assert missing == ["head.weight"] and unexpected == ["teacher.a.weight", "x.bias"]
    # a mask token that only the pretraining had
    fit({"emb.stem.weight": 2}, {"emb.stem.weight": 2, "emb.mask_token": 1})


@pytest.mark.parametrize(
    "own, weight, message",
    [
        ({"a.weight": 2}, {"a.weight": 3}, r"wrong shape: 1 \(a.weight \(3,\), model \(2,\)\)"),
        ({"n.weight": 2, "n.bias": 2}, {"n.weight": 2, "n.bias": 2, "n.mean": 2},
         r"unexpected: 1 \(n.mean\); layers with other tensors: 1 \(n\)"),
        ({"a.weight": 2, "b.weight": 2, "h.weight": 1},
         {"c.weight": 2, "d.weight": 2, "h.weight": 1}, r"missing: 2 \(a.weight, b.weight\)"),
        ({"a.weight": 2}, {}, "missing: 1"),
    ],
    ids=["shape", "norm", "names", "nothing"],
)  # fmt: skip
def test_weights_of_another_backbone(own, weight, message):
    with pytest.raises(ValueError, match=r"'c.pth' does not fit .*" + message):
        fit(own, weight)


def test_strict_refuses_any_difference():
    own, weight = {"a.weight": 1, "b.weight": 1, "c.weight": 1}, {"a.weight": 1, "b.weight": 1}
    assert fit(own, weight) == (["c.weight"], [])
    with pytest.raises(ValueError, match=r"missing: 1 \(c.weight\)"):
        fit(own, weight, strict=True)


class FakeTrainer:
    """What the reporting and saving hooks look at."""

    def __init__(self, folder, **cfg):
        self.cfg = SimpleNamespace(**dict(dict(save_path=str(folder), evaluate=False,
                                               enable_amp=False), **cfg))  # fmt: skip
        self.model = nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5)
        self.scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimizer)
        self.logger, self.writer, self.storage = logging.getLogger("fake"), None, EventStorage()
        self.comm_info, self.epoch, self.start_epoch, self.max_epoch = {"iter": 0}, 0, 0, 3
        self.train_loader, self.best_metric_value = [0, 1], -math.inf


def hook(config, trainer):
    built = HOOKS.build(config)
    built.trainer = trainer
    return built


@pytest.mark.parametrize("value", [1.0, torch.zeros(2), None])
def test_outputs_that_are_no_scalar_tensors_are_named(tmp_path, value):
    trainer = FakeTrainer(tmp_path)
    writer = hook(dict(type="InformationWriter"), trainer)
    writer.before_train()
    writer.before_step()
    trainer.comm_info["model_output_dict"] = dict(loss=torch.ones(()), extra=value)
    with pytest.raises(TypeError, match="model output 'extra' must be a tensor of one element"):
        writer.after_step()


def test_best_checkpoints_follow_the_metric(tmp_path):
    (tmp_path / "model").mkdir()
    trainer = FakeTrainer(tmp_path, evaluate=True)
    saver = hook(dict(type="CheckpointSaver", save_freq=2), trainer)
    with pytest.raises(KeyError, match="no evaluator hook"):
        saver.after_epoch()
    for trainer.epoch, metric in enumerate([0.3, 0.5, 0.4]):
        trainer.comm_info.update(current_metric_value=metric, current_metric_name="mIoU")
        saver.after_epoch()
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["epoch_2.pth", "model_best.pth", "model_last.pth"]
    best, last = (torch.load(tmp_path / f"model/model_{n}.pth") for n in ("best", "last"))
    assert (best["epoch"], last["epoch"]) == (2, 3)
    assert best["best_metric_value"] == last["best_metric_value"] == 0.5


def test_timer_forgets_the_warm_up(tmp_path):
    trainer = FakeTrainer(tmp_path)
    timer = hook(dict(type="IterationTimer", warmup_iter=1), trainer)
    timer.before_train()
    timer.before_epoch()
    counts = []
    for trainer.comm_info["iter"] in range(4):
        timer.before_step()
        timer.after_step()
        counts.append(trainer.storage.history("batch_time").count)
    assert counts == [0, 0, 1, 2] and timer.remaining == 3 * 2 - 4


def test_hooks_must_be_hooks():
    HOOKS.register_module("NoHook")(Net)
    try:
        with pytest.raises(TypeError, match="Net does not derive from HookBase"):
            build_hooks([dict(type="NoHook")])
    finally:
        del HOOKS.module_dict["NoHook"]
