"""When PrototypeMonitor measures, what it warns of, and its options."""

import math
from types import SimpleNamespace

import pytest
import torch

from dos_plugin.hooks.limits import LIMITS, Alarm
from dos_plugin.hooks.monitor import PrototypeMonitor
from dos_plugin.models.dos import Matched, Pairs

GOOD = dict(feat_std=0.7, rankme=30.0, target_entropy=0.9, prior_kl=0.1)


def test_a_warning_is_given_once_until_it_is_kept_again():
    alarm = Alarm()
    both = GOOD | dict(rankme=1.4, prior_kl=9.0)
    assert alarm.messages(GOOD, 1) == []
    assert alarm.messages(GOOD | dict(rankme=1.6), 2) == []
    (message,) = alarm.messages(GOOD | dict(rankme=1.5), 3)
    assert "step 3" in message and "rankme is 1.5, below 3" in message
    assert alarm.messages(both, 4) == []
    (message,) = alarm.messages(both, 5)
    assert "prior_kl is 9, above 2" in message and "rankme" not in message
    assert alarm.messages(GOOD, 6) == []
    assert alarm.messages(both, 7) == []
    assert len(alarm.messages(both, 8)) == 2


def test_one_odd_batch_is_no_collapse():
    alarm = Alarm()
    odd = GOOD | dict(feat_std=0.1)
    assert [alarm.messages(values, 0) for values in (GOOD, odd, GOOD, odd, GOOD)] == [[]] * 5


def test_values_that_are_no_numbers_are_warned_of():
    (message,) = Alarm().messages(GOOD | dict(feat_std=math.nan), 7)
    assert "feat_std is nan, not a number" in message


def test_limits_are_options():
    alarm = Alarm(dict(rankme=31))
    alarm.messages(GOOD, 1)
    assert "below 31" in alarm.messages(GOOD, 2)[0]
    assert LIMITS["rankme"].value == 3.0
    with pytest.raises(ValueError, match="limits: there is none for 'rank', only for"):
        PrototypeMonitor(limits=dict(rank=1))
    with pytest.raises(ValueError, match="limits: rankme must be a number in .*, got 'low'"):
        PrototypeMonitor(limits=dict(rankme="low"))
    with pytest.raises(ValueError, match=r"limits must be a dict of options, got \[1\]"):
        PrototypeMonitor(limits=[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(interval=0), "interval of PrototypeMonitor must be .* at least 1, got 0"),
        (dict(warmup=None), "warmup of PrototypeMonitor must be .* at least 0, got None"),
        (dict(dead_below=None), r"dead_below of PrototypeMonitor .* in \[0, 1\], got None"),
        (dict(duplicate_above=95), r"duplicate_above of PrototypeMonitor .* in \[0, 1\], got 95"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        PrototypeMonitor(**options)


def test_other_models_are_refused():
    hook = PrototypeMonitor()
    hook.trainer = SimpleNamespace(model=torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="needs model.type='DOS-v1m1', got Linear"):
        hook.before_train()


class FakeModel:
    """What the hook sees of a model that takes an optimizer step every second batch."""

    observer, step, head_channels = None, 0, 4


@pytest.mark.parametrize(
    "interval, expected",
    [
        (2, [(0, 1), (0, 4), (1, 2), (2, 0), (2, 4), (3, 2)]),
        (100, [(0, 1), (0, 5), (1, 5), (2, 5), (3, 5)]),  # an epoch's last batch
    ],
)
def test_when_it_measures(interval, expected):
    """The first batch has no scene here, which is made up for at the next."""
    hook, model = PrototypeMonitor(interval=interval), FakeModel()
    hook.trainer = SimpleNamespace(
        train_loader=range(6),
        comm_info={},
        writer=None,
        cfg=dict(enable_wandb=False),
    )
    hook.model = model
    measured = []
    hook.measure = lambda *_: measured.append((epoch, batch)) or dict(GOOD)
    for epoch in range(4):
        hook.before_epoch()
        for batch in range(6):
            hook.trainer.comm_info["iter"] = batch
            hook.before_step()
            if model.observer is not None:
                rows = torch.arange(0 if (epoch, batch) == (0, 0) else 5)
                pairs = [Pairs(rows, rows, rows)] * 2
                feat = torch.ones(len(rows), 4)
                model.observer(Matched(feat, feat, pairs, pairs), None)
            model.step += batch % 2
            hook.after_step()
            assert model.observer is None
    assert measured == expected
