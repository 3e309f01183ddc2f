"""The seam to the host: which codebase is active, its registries and base classes.

This file and ``dos_plugin/cpu`` are the only ones that know Pointcept. A process has one host:

1. the package named by the environment variable ``DOS_HOST`` (a fork of Pointcept under another
   name, or ``minihost`` for the embedded host), else
2. the one that is imported already: a script of the host imports it before it reads a config, else
3. ``pointcept`` where it can be imported, else the embedded host.

Importing this module imports no host: ``HOST`` is loaded when it is first asked for.
"""

import functools
import importlib
import importlib.util
import os
import sys
from typing import Any, NamedTuple

EMBEDDED = "minihost"


class Host(NamedTuple):
    """What the components need of a host."""

    name: str
    MODELS: Any
    MODULES: Any
    TRANSFORMS: Any
    HOOKS: Any
    DATASETS: Any
    TESTERS: Any
    build_model: Any
    build_criteria: Any
    Compose: type
    Config: Any
    DictAction: Any
    collate_fn: Any
    HookBase: type
    TesterBase: type
    PointModel: type
    Point: type


def _choose() -> str:
    chosen = os.environ.get("DOS_HOST")
    if chosen:
        return chosen
    if "pointcept" in sys.modules:
        return "pointcept"
    if "dos_plugin.minihost" in sys.modules:
        return EMBEDDED
    return "pointcept" if importlib.util.find_spec("pointcept") else EMBEDDED


# Where a host of Pointcept's layout keeps what we need.
_LAYOUT = {
    "MODELS": "models.builder",
    "MODULES": "models.builder",
    "TRANSFORMS": "datasets.transform",
    "HOOKS": "engines.hooks.builder",
    "DATASETS": "datasets.builder",
    "TESTERS": "engines.test",
    "build_model": "models.builder",
    "build_criteria": "models.losses",
    "Compose": "datasets.transform",
    "Config": "utils.config",
    "DictAction": "utils.config",
    "collate_fn": "datasets",
    "HookBase": "engines.hooks",
    "TesterBase": "engines.test",
    "PointModel": "models.modules",
    "Point": "models.utils.structure",
}


def load(name: str) -> Host:
    """Import a host and collect what the components need of it.

    Args:
        name: ``minihost`` or the package name of Pointcept or a fork of it.

    Raises:
        ImportError: If there is no such package, or it misses something (it is too old).
    """
    if name == EMBEDDED:
        embedded = importlib.import_module("dos_plugin.minihost")
        return Host(name, **{key: getattr(embedded, key) for key in _LAYOUT})
    if importlib.util.find_spec(name) is None:
        raise ImportError(
            f"host package {name!r} not found: run from the root of a Pointcept checkout with "
            "PYTHONPATH=./, set DOS_HOST to the name of your fork, or use the embedded host with "
            "python -m dos_plugin.minihost"
        )
    found = {}
    for key, module in _LAYOUT.items():
        try:
            found[key] = getattr(importlib.import_module(f"{name}.{module}"), key)
        except (AttributeError, ModuleNotFoundError) as error:
            if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith(name):
                raise  # a dependency of the host is missing, and the message names it
            raise ImportError(
                f"host {name!r} has no {module}.{key}; dos-plugin needs Pointcept v1.6.0 or newer"
            ) from error
    return Host(name, **found)


@functools.cache
def active_host() -> Host:
    """The host of this process."""
    return load(_choose())


HOST: Host


def __getattr__(name: str) -> Host:
    if name == "HOST":
        return active_host()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
