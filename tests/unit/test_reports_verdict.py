"""The rule that judges a run."""

import pytest

from dos_plugin.hooks.limits import LIMITS, Alarm
from dos_plugin.reports.verdict import Evidence, Gain, judge

HEALTHY = dict(feat_std=0.9, rankme=40.0, target_entropy=0.9, prior_kl=0.1, dead_share=0.0)
DOS = dict(kind="DOS pretraining", loss=1.0, epochs_done=10, epochs=10)


def gain(after, spread=0.3):
    return Gain("mIoU", 20.0, after, "random weights", spread)


@pytest.mark.parametrize(
    "evidence, level",
    [
        (dict(gain=gain(25.0)), "learning"),
        (dict(gain=gain(25.0), epochs_done=1), "learning"),
        (dict(gain=gain(20.9)), "not learning"),
        (dict(gain=gain(15.0)), "not learning"),
        (dict(gain=gain(20.9), epochs_done=9), "early"),
        (dict(gain=gain(21.1)), "learning"),
        (dict(gain=gain(21.9, spread=None)), "not learning"),
        (dict(gain=gain(22.1, spread=None)), "learning"),
        (dict(gain=gain(22.0, spread=1.1)), "not learning"),
        (dict(gain=gain(22.3, spread=1.1)), "learning"),
        (dict(monitors=HEALTHY), "unknown"),
        (dict(monitors=HEALTHY, epochs_done=2), "early"),
        (dict(loss=float("nan"), gain=gain(30.0)), "collapsed"),
        (dict(loss=float("inf"), epochs_done=0), "collapsed"),
        (dict(loss=None, epochs_done=0, epochs=0), "unknown"),
        (dict(kind="segmentation run"), "unknown"),
        (dict(kind="segmentation run", gain=gain(40.0)), "learning"),
        (dict(kind="other pretraining"), "unknown"),
        (dict(kind="other pretraining", epochs_done=2), "early"),
    ],
)
def test_levels(evidence, level):
    assert judge(Evidence(**(DOS | evidence))).level == level


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_that_is_passed_is_a_collapse_with_its_number(name):
    limit = LIMITS[name]
    step = -1e-3 if limit.side == "below" else 1e-3
    for value, collapsed in ((limit.value + step, True), (limit.value - step, False)):
        evidence = Evidence(**DOS, monitors=HEALTHY | {name: value}, gain=gain(30.0))
        verdict = judge(evidence)
        assert (verdict.level == "collapsed") == collapsed
        if collapsed:
            assert f"{name} is {value:.4g}, {limit.side} {limit.value:g}" in verdict.reasons[0]
    assert judge(Evidence(**DOS, monitors={name: float("nan")})).level == "collapsed"


def test_limits_of_the_run_count():
    low = DOS | dict(monitors=HEALTHY | dict(feat_std=0.1))
    assert judge(Evidence(**low)).level == "collapsed"
    own = Alarm(dict(feat_std=0.05)).limits
    assert judge(Evidence(**low, limits=own)).level == "unknown"


def test_reasons_say_the_numbers():
    verdict = judge(Evidence(**DOS, monitors=HEALTHY, gain=gain(25.0)))
    assert verdict.reasons[0] == "mIoU: 25.0, random weights: 20.0 (+5.0 points)."
    assert "feature std 0.90" in verdict.reasons[1] and "RankMe 40.0" in verdict.reasons[1]
    early = judge(Evidence(**(DOS | dict(epochs_done=3))))
    assert early.reasons == ["Epochs done: 3 of 10."]
