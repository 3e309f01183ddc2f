"""One plain verdict on a run, from its monitors and probes, and the numbers it rests on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from dos_plugin.hooks.limits import LIMITS, Limit

Level = Literal["learning", "early", "unknown", "not learning", "collapsed"]

# Better by less than so many points of mIoU counts as no better; where there is one seed, whose
# luck nothing tells, by less than twice as many.
LEAST_GAIN = 1.0


@dataclass
class Gain:
    """A score after training beside the one to beat; percent.

    Attributes:
        what: the score.
        before: of random weights, or of the first validation.
        after: of the trained network.
        baseline: what ``before`` is of, in words.
        spread: standard deviation over seeds, None if there is one seed.
    """

    what: str
    before: float
    after: float
    baseline: str
    spread: float | None = None

    @property
    def enough(self) -> bool:
        """Better by more than chance: a point and twice the spread, or two points of one seed."""
        spread = LEAST_GAIN if self.spread is None else self.spread
        return self.after - self.before >= max(LEAST_GAIN, 2 * spread)

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.after:.1f}, {self.baseline}: {self.before:.1f} "
            f"({self.after - self.before:+.1f} points)"
        )


@dataclass
class Evidence:
    """What a verdict rests on; whatever is not known is left out.

    Attributes:
        kind: ``"DOS pretraining"``, ``"segmentation run"``, or another one.
        loss: the last loss.
        monitors: last values by the names of :data:`dos_plugin.hooks.limits.LIMITS` and others.
        gain: a probe against random weights, or the best validation against the first.
        epochs_done: finished epochs.
        epochs: all epochs of the run, 0 if unknown.
        limits: those that the run's ``PrototypeMonitor`` has.
    """

    kind: str
    loss: float | None = None
    monitors: Mapping[str, float] = field(default_factory=dict)
    gain: Gain | None = None
    epochs_done: int = 0
    epochs: int = 0
    limits: Mapping[str, Limit] = field(default_factory=lambda: dict(LIMITS))

    @property
    def finished(self) -> bool:
        """All epochs are done."""
        return 0 < self.epochs <= self.epochs_done


@dataclass
class Verdict:
    """The verdict in plain words: a level, a heading, and the reasons with their numbers."""

    level: Level
    title: str
    reasons: list[str]


def judge(evidence: Evidence) -> Verdict:
    """The first of these rules that applies.

    1. *Collapsed*: the last loss is not finite, or a monitor is beyond its limit (where
       ``PrototypeMonitor`` warns).
    2. *Learning*: a score is better than what it must beat, by at least a point of mIoU and twice
       the standard deviation over seeds, or by two points where there is one seed. For a
       pretraining the score is a probe of the frozen features, to beat are random weights; for a
       segmentation run it is the best validation, to beat is the first one.
    3. *Not learning*: the run is finished and rule 2's score is there, but no better.
    4. *Too early to say*: epochs are left.
    5. *Cannot be told*: none is left, or nothing says how many, and there is no such score.
       Healthy monitors show that nothing collapsed, not that the features are good.
    """
    checks: tuple[Callable[[Evidence], Verdict | None], ...] = (_collapsed, _gained, _open)
    found = next(verdict for check in checks if (verdict := check(evidence)) is not None)
    if found.level != "collapsed":
        found.reasons += healthy(evidence.monitors)
    return found


def healthy(monitors: Mapping[str, float]) -> list[str]:
    """A sentence on the monitors that are within their limits; none if there are none."""
    words = {
        "feat_std": "feature std {:.2f} (1 is even, 0 collapsed)",
        "rankme": "RankMe {:.1f}",
        "prior_kl": "KL to the prior {:.3f} nats",
        "effective_prototypes": "{:.0f} prototypes in effective use",
    }
    found = [text.format(monitors[name]) for name, text in words.items() if name in monitors]
    return [f"No sign of collapse: {', '.join(found)}."] if found else []


def _collapsed(evidence: Evidence) -> Verdict | None:
    if evidence.loss is not None and not math.isfinite(evidence.loss):
        return Verdict("collapsed", "Diverged", [f"The last loss is {evidence.loss}."])
    reasons = []
    for name, limit in evidence.limits.items():
        value = evidence.monitors.get(name)
        if value is None:
            continue
        if limit.passed_by(value):
            meaning = limit.meaning[0].upper() + limit.meaning[1:]
            reasons.append(f"{meaning}: {name} is {value:.4g}, {limit.side} {limit.value:g}.")
    if reasons and evidence.gain:
        reasons.append(f"{evidence.gain}.")
    return Verdict("collapsed", "Collapsed", reasons) if reasons else None


def _gained(evidence: Evidence) -> Verdict | None:
    gain = evidence.gain
    if gain is None:
        return None
    if gain.enough:
        return Verdict("learning", "Learning", [f"{gain}."])
    if not evidence.finished:
        return None
    return Verdict("not learning", "Not learning", [f"{gain}, all {evidence.epochs} epochs done."])


def _open(evidence: Evidence) -> Verdict:
    gain = [f"{evidence.gain}."] if evidence.gain else []
    if evidence.epochs and not evidence.finished:
        far = f"Epochs done: {evidence.epochs_done} of {evidence.epochs}."
        return Verdict("early", "Too early to say", [*gain, far])
    if evidence.kind == "segmentation run":
        lack = "There are no two validations to compare, and a falling training loss is no proof."
    elif evidence.kind == "DOS pretraining":
        lack = (
            "There is no probe beside random weights: it needs labels on some scans, and either "
            "OnlineProbe among the hooks or this report without --no-probe."
        )
    elif evidence.kind == "detection run":
        lack = (
            "A score alone does not say what pretraining gave: compare its mAP with that of the "
            "same detector trained from random weights."
        )
    else:
        lack = (
            "There are no monitors of this method and no probe; its losses alone say little about "
            "its features."
        )
    return Verdict("unknown", "Cannot be told from what is here", [*gain, lack])
