"""Value schedules as pure functions of the optimizer step, so that resuming is arithmetic."""

import math

from .options import check_number, check_whole


def warmup_cosine(
    step: int,
    total_steps: int,
    base: float,
    final: float,
    start: float | None = None,
    warmup_ratio: float = 0.0,
) -> float:
    """Linear warm-up from ``start`` to ``base``, then a cosine from ``base`` to ``final``.

    Args:
        step: Optimizer steps taken so far; beyond ``total_steps`` the value stays ``final``.
        total_steps: Optimizer steps of the whole run.
        base: Value after the warm-up.
        final: Value at the end.
        start: Value at step 0 (default: ``base``).
        warmup_ratio: Share of ``total_steps`` that the warm-up takes, in [0, 1].

    Returns:
        The value at ``step``.

    Raises:
        ValueError: If ``step`` is negative or ``warmup_ratio`` outside [0, 1].
    """
    check_whole("step", step, 0)
    check_number("warmup_ratio", warmup_ratio, "[0, 1]")
    warmup_steps = int(total_steps * warmup_ratio)
    if step < warmup_steps:
        start = base if start is None else start
        return start + (base - start) * step / warmup_steps
    if step >= total_steps:
        return final
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return final + (base - final) * (1 + math.cos(math.pi * progress)) / 2
