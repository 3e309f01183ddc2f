"""Checks of options: a wrong one is an error that names it, and never a training of nonsense.

A config comes from a file or a command line, where ``"0.9"``, ``256.0``, ``True`` and ``"None"``
are easily written for what is meant. Each function takes the option's name as users know it, its
value, and what it may be, and raises ValueError with all three.
"""

import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

# Prototypes; channels and classes. More is a slip, and would end as a lack of memory.
MOST_ROWS = 2**20
MOST_CHANNELS = 2**16


def check_whole(name: str, value: Any, least: int = 1, most: int = 2**62) -> None:
    """ValueError unless the value is a whole number from ``least`` to ``most``."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if value > most:
        raise ValueError(f"{name} must be a whole number of at most {most}, got {value!r}")


def check_number(name: str, value: Any, interval: str) -> None:
    """ValueError unless the value is a number in an interval, as ``"[0, 1)"`` or ``"(0, inf)"``."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    good = isinstance(value, Real) and not isinstance(value, bool)
    above = good and (value > low if interval[0] == "(" else value >= low)
    below = good and (value < high if interval[-1] == ")" else value <= high)
    if not (above and below):
        raise ValueError(f"{name} must be a number in {interval}, got {value!r}")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """ValueError unless the value is one of the choices, of the same type: 1 is not True."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError(f"{name} must be one of {tuple(choices)}, got {value!r}")


def check_flag(name: str, value: Any) -> None:
    """ValueError unless the value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def check_path(name: str, value: Any) -> None:
    """ValueError unless the value is a path or a name that is not empty."""
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise ValueError(f"{name} must be a name or a path, got {value!r}")


def check_names(name: str, value: Any) -> None:
    """ValueError unless the value is a list or tuple of names, none twice."""
    names = isinstance(value, list | tuple) and all(isinstance(n, str) and n for n in value)
    if not names or not value or len(set(value)) < len(value):
        raise ValueError(f"{name} must be a list of names, none twice, got {value!r}")


def check_config(name: str, value: Any) -> None:
    """ValueError unless the value is a dict of options by their names."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name} must be a dict of options, got {value!r}")


def check_configs(name: str, value: Any) -> None:
    """ValueError unless the value is a list or tuple of configs with a ``type``."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} must be a list of configs, got {value!r}")
    for number, config in enumerate(value):
        check_component(f"{name}[{number}]", config)


def check_component(name: str, value: Any) -> None:
    """ValueError unless the value is a config with a ``type``, as registries build from."""
    check_config(name, value)
    if "type" not in value:
        raise ValueError(f"{name} must have a type, got {dict(value)!r}")
