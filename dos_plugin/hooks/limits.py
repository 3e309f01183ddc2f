"""What PrototypeMonitor says: limits that healthy runs keep, warnings, and a line an epoch."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dos_plugin.method.options import check_config, check_number

_GENTLER = (
    "a lower optimizer.lr (with scheduler.max_lr), model.momentum_base nearer to 1, and "
    "model.sinkhorn with num_iters=3"
)
_REGULARISE = "model.sinkhorn with num_iters=3, a lower optimizer.lr, or fewer num_prototypes"

# Other than the feat_std of the training log, which is without the factor.
FEAT_STD = "all points have nearly the same features (feat_std times sqrt(D), 1 is even)"


class Limit(NamedTuple):
    """What a number must not pass.

    Attributes:
        side: ``"below"`` or ``"above"``: where it must not be.
        value: the limit.
        meaning: what is wrong when it is passed.
        advice: what to try then.
    """

    side: str
    value: float
    meaning: str
    advice: str

    def passed_by(self, value: float) -> bool:
        """Whether a value is beyond the limit, or not a number."""
        below = self.side == "below"
        return math.isnan(value) or (value < self.value if below else value > self.value)


# Beyond what healthy runs reach, and before what collapsed ones end at: docs/monitoring.md.
LIMITS = {
    "feat_std": Limit("below", 0.15, FEAT_STD, _GENTLER),
    "rankme": Limit("below", 3.0, "the features fill next to no dimension", _GENTLER),
    "target_entropy": Limit("above", 0.995, "the teacher's targets tell nothing apart", _GENTLER),
    "prior_kl": Limit("above", 2.0, "the prototypes' mass is far from the prior", _REGULARISE),
    "dead_share": Limit("above", 0.5, "most prototypes are used by no point", _REGULARISE),
    "duplicate_share": Limit("above", 0.5, "most prototypes are copies of others", _GENTLER),
}


class Alarm:
    """Warns once of every limit that is passed twice in a row, and again only after it was kept.

    One batch may be odd: where all views show bare road, features hardly differ.

    Args:
        limits: Other values for some of ``LIMITS``.

    Raises:
        ValueError: If there is no such limit, or its value is no number.
    """

    def __init__(self, limits: Mapping[str, float] | None = None) -> None:
        self.limits = dict(LIMITS)
        if limits is not None:
            check_config("limits", limits)
        for name, value in (limits or {}).items():
            if name not in LIMITS:
                raise ValueError(f"limits: there is none for {name!r}, only for {list(LIMITS)}")
            check_number(f"limits: {name}", value, "[-inf, inf]")
            self.limits[name] = LIMITS[name]._replace(value=value)
        self.passed: set[str] = set()  # at the measurement before
        self.warned: set[str] = set()

    def messages(self, values: Mapping[str, float], step: int) -> list[str]:
        """Warnings to be given about the numbers of a step; of NaN without waiting for a second."""
        passed = {n for n, lim in self.limits.items() if n in values and lim.passed_by(values[n])}
        lasting = {n for n in passed if n in self.passed or math.isnan(values[n])}
        new = [name for name in self.limits if name in lasting - self.warned]
        self.warned = passed & (self.warned | lasting)
        self.passed = passed
        return [self._message(name, values[name], step) for name in new]

    def _message(self, name: str, value: float, step: int) -> str:
        limit = self.limits[name]
        place = "not a number" if math.isnan(value) else f"{limit.side} {limit.value:g}"
        return (
            f"DOS: step {step}: this run seems to collapse: {limit.meaning}: "
            f"{name} is {value:.4g}, {place}. Try {limit.advice}; see docs/monitoring.md"
        )


def summary(measured: Sequence[Mapping[str, float]], channels: int, num_prototypes: int) -> str:
    """One line about an epoch: means of its measurements, healthy values beside them.

    Args:
        measured: At least one measurement.
        channels: D, of the projection.
        num_prototypes: K.
    """
    mean = {key: sum(m[key] for m in measured) / len(measured) for key in measured[0]}
    parts = [
        f"feature std {mean['feat_std']:.2f} (even 1, collapsed 0)",
        f"RankMe {mean['rankme']:.1f} of {channels}",
    ]
    if "prior_kl" in mean:
        parts += [
            f"target entropy {mean['target_entropy']:.3f} (collapsed 1)",
            f"KL to prior {mean['prior_kl']:.3f} (kept 0)",
            f"effective prototypes {mean['effective_prototypes']:.1f} "
            f"(prior {mean['effective_prototypes_of_prior']:.1f})",
            f"dead {mean['dead_prototypes']:.0f} and duplicate {mean['duplicate_prototypes']:.0f} "
            f"of {num_prototypes}",
        ]
    parts += [
        f"matched {mean['same_matched']:.0%} in the same view, {mean['cross_matched']:.0%} across",
        f"visible {mean['visible']:.0%}",
    ]
    return "Monitor: " + ", ".join(parts)
