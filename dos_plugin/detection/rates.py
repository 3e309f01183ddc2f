"""Learning rates that fall from a backbone's last layer to its first."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Way down: a stage's pooling counts with its first block. Way up: deeper stages come first.
_PLACES = (
    (0, re.compile(r"(?:embedding|conv_input)\.")),
    (1, re.compile(r"enc\.enc(\d+)\.(?:down|block(\d+))\.")),
    (1, re.compile(r"enc\.(\d+)\.block(\d+)\.")),
    (1, re.compile(r"down\.(\d+)\.")),
    (2, re.compile(r"dec\.dec(\d+)\.(?:up|block(\d+))\.")),
    (2, re.compile(r"dec\.(\d+)\.block(\d+)\.")),
    (2, re.compile(r"up\.(\d+)\.")),
    (3, re.compile(r"final\.")),
)


def layer_scales(names: Iterable[str], decay: float) -> dict[str, float]:
    """Factor of the learning rate of every parameter.

    Args:
        names: names of the parameters of PT-v3m1, PT-v3m2 or SpUNet-v1m1.
        decay: factor from a layer to the one before it, in (0, 1]; a layer is the stem or a block.

    Returns:
        ``decay ** n`` by name, n layers below the last one.

    Raises:
        ValueError: for a decay outside (0, 1], and for a name of another backbone.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay: expected a factor in (0, 1], got {decay}")
    places = {name: _place(name) for name in names}
    order = sorted(set(places.values()))
    return {name: decay ** (len(order) - 1 - order.index(p)) for name, p in places.items()}


def _place(name: str) -> tuple[int, int, int]:
    for part, pattern in _PLACES:
        if found := pattern.match(name):
            stage, block = (*(int(n or 0) for n in found.groups()), 0, 0)[:2]
            return part, -stage if part == 2 else stage, block
    raise ValueError(
        f"{name}: no layer of PT-v3m1, PT-v3m2 or SpUNet-v1m1, whose parameters start with "
        "embedding, enc, dec, conv_input, down, up or final"
    )
