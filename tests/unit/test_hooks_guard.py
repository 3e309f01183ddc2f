"""NonFiniteGuard: a step whose gradients are not finite leaves no trace, in any precision."""

import copy
import logging
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dos_plugin import messages
from dos_plugin.hooks.guard import NonFiniteGuard
from dos_plugin.method import ema_update


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    """Warnings are counted, and told less and less often."""
    monkeypatch.setattr(messages, "_counts", Counter())


class Training:
    """The hosts' step on a small model: scaler, clipping, accumulation, a teacher by EMA.

    Args:
        dtype: of autocast; None for float32. With float16 there is a scaler.
        accumulate: batches of a step.
        guarded: with the hook.
    """

    def __init__(self, dtype=None, accumulate=1, guarded=True, **options):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.teacher = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 0.1)
        self.optimizer.register_step_post_hook(lambda *_: ema_update(self.teacher, self.model, 0.9))
        self.dtype, self.accumulate, self.epoch = dtype, accumulate, 0
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0) if dtype else None
        self._gradient_accumulation_counter = 0
        self.scheduler = SimpleNamespace(last_epoch=0)
        self.comm_info, self.logger = dict(iter=0), logging.getLogger("a training")
        self.hook = NonFiniteGuard(**options) if guarded else None
        if self.hook:
            self.hook.trainer = self
            self.hook.before_train()

    def batch(self, number, spoil=None):
        """Train on a batch; ``spoil``: where a NaN or an infinity comes in."""
        feat = torch.randn(8, 3, generator=torch.Generator().manual_seed(number))
        if spoil == "input":
            feat[2, 1] = torch.nan
        self.comm_info["input_dict"] = dict(name=[f"scene {number}"], feat=feat)
        if self.hook:
            self.hook.before_step()
        if self._gradient_accumulation_counter == 0:
            self.optimizer.zero_grad()
        with torch.autocast("cpu", self.dtype, enabled=self.dtype is not None):
            loss = self.model(feat).float().square().mean()
        if spoil == "loss":
            loss = loss * torch.inf
        if spoil == "gradient":  # of a loss that is finite: the root of 0
            loss = loss + (self.model[0].weight[0, 0] * 0).sqrt()
        scaled = loss / self.accumulate
        (self.scaler.scale(scaled) if self.scaler else scaled).backward()
        self._gradient_accumulation_counter += 1
        if self._gradient_accumulation_counter == self.accumulate:
            self._gradient_accumulation_counter = 0
            if self.scaler:
                self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), 3.0)
            if self.scaler:
                self.scaler.step(self.optimizer)
                self.scaler.update()
            else:
                self.optimizer.step()
            self.scheduler.last_epoch += 1
        self.comm_info["model_output_dict"] = dict(loss=loss, other=torch.ones(()))
        if self.hook:
            self.hook.after_step()

    def state(self):
        model, teacher = self.model.state_dict(), self.teacher.state_dict()
        moments = [s["exp_avg"] for s in self.optimizer.state.values()]
        return [t.clone() for t in (*model.values(), *teacher.values(), *moments)]


@pytest.mark.parametrize("spoil", ["input", "loss", "gradient"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_step_left_out_changes_neither_weights_nor_statistics(dtype, spoil, caplog):
    run = Training(dtype)
    run.batch(0)
    before = [t for t in run.state() if t.is_floating_point()]
    student = copy.deepcopy(run.model.state_dict())
    run.batch(1, spoil)
    assert all(t.isfinite().all() for t in run.state())
    for name, value in run.model.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, student[name]), name
    assert "scene 1" in caplog.text and "is left out" in caplog.text
    run.batch(2)
    assert any(not torch.equal(a, b) for a, b in zip(before, run.state()))  # it goes on


@pytest.mark.parametrize("spoil", ["input", "loss", "gradient"])
def test_without_the_hook_the_same_step_spoils_everything(spoil):
    """The control: else the test above would show nothing."""
    run = Training(guarded=False)
    run.batch(0)
    run.batch(1, spoil)
    assert not all(t.isfinite().all() for t in run.state())


def test_healthy_steps_are_the_same_with_and_without_the_hook():
    runs = [Training(guarded=guarded) for guarded in (True, False)]
    for run in runs:
        for number in range(4):
            run.batch(number)
    assert all(torch.equal(a, b) for a, b in zip(*(run.state() for run in runs)))


def test_of_accumulated_batches_one_is_enough_and_all_are_named(caplog):
    run = Training(accumulate=3)
    for number in range(3):
        run.batch(number)
    before = run.state()
    for number in (3, 4, 5):
        run.batch(number, "input" if number == 4 else None)
    assert "scene 3, scene 4, scene 5" in caplog.text
    model = len(run.model.state_dict())
    for a, b in zip(before[:model], run.state()[:model]):
        assert torch.equal(a, b) or not a.is_floating_point()


def test_what_is_not_finite_enters_no_mean():
    run = Training()
    run.batch(0, "loss")
    assert list(run.comm_info["model_output_dict"]) == ["other"]
    run.batch(1)
    assert list(run.comm_info["model_output_dict"]) == ["loss", "other"]


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_too_many_in_a_row_end_the_run(dtype):
    run = Training(dtype, stop_after=3)
    run.batch(0, "loss")
    run.batch(1, "loss")
    run.batch(2)
    run.batch(3, "loss")
    run.batch(4, "loss")
    with pytest.raises(FloatingPointError, match=r"3 steps in a row.* scene 5: .*optimizer\.lr"):
        run.batch(5, "loss")


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", None])
def test_stop_after_is_checked(value):
    with pytest.raises(ValueError, match="stop_after of NonFiniteGuard"):
        NonFiniteGuard(stop_after=value)
