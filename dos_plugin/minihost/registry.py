"""Registries of the embedded host: mmengine's, with the lookup and error rules of the real host."""

import copy
import difflib
import inspect
from typing import Any

from mmengine.registry import Registry


def _build(cfg: dict, registry: "HostRegistry") -> Any:
    """Build ``cfg["type"]`` with the remaining keys as keyword arguments.

    Raises:
        TypeError: If ``cfg`` is no dict.
        KeyError: If ``type`` is missing or unknown; close names are suggested.
        Exception: What the constructor raised, as the same type, with the class name in front.
    """
    if not isinstance(cfg, dict):
        raise TypeError(
            f"{registry.name}: a config must be a dict, got {type(cfg).__name__}: {cfg!r}"
        )
    if "type" not in cfg:
        raise KeyError(f"{registry.name}: the config has no 'type': {dict(cfg)!r}")
    arguments = cfg.copy()
    kind = arguments.pop("type")
    cls = registry.get(kind) if isinstance(kind, str) else kind
    if cls is None:
        close = difflib.get_close_matches(kind, registry.module_dict, n=3, cutoff=0.5)
        hint = f"; close names: {', '.join(close)}" if close else ""
        raise KeyError(f"{kind} is not in the {registry.name} registry of the embedded host{hint}")
    if not inspect.isclass(cls):
        raise TypeError(f"{registry.name}: type must be a name or a class, got {kind!r}")
    try:
        return cls(**arguments)
    except Exception as error:
        message = f"{cls.__name__}: {error.args[0] if len(error.args) == 1 else error}"
        try:
            renamed = type(error)(message)
        except TypeError:  # an exception class that wants more than one string
            renamed = ValueError(message)
        raise renamed from error


class HostRegistry(Registry):
    """A flat registry of classes.

    It refuses what the real host cannot look up (functions, names with a dot), so that a plugin
    that registers here registers there too; an unknown name is ``None`` from :meth:`get`.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, build_func=_build, scope="dos_plugin")

    def get(self, key: str) -> type | None:
        return self._module_dict.get(key)

    def build(self, cfg: dict) -> Any:
        return _build(cfg, self)

    def _register_module(self, module, module_name=None, force=False) -> None:
        if not inspect.isclass(module):
            raise TypeError(f"{self.name}: only classes can be registered, got {module!r}")
        names = [module_name] if isinstance(module_name, str) else module_name
        for name in names or [module.__name__]:
            if "." in name:
                raise ValueError(f"{self.name}: a registered name has no dot, got {name!r}")
        super()._register_module(module=module, module_name=module_name, force=force)


MODELS = HostRegistry("models")
MODULES = HostRegistry("modules")
DATASETS = HostRegistry("datasets")
TRANSFORMS = HostRegistry("transforms")
HOOKS = HostRegistry("hooks")
LOSSES = HostRegistry("losses")
TRAINERS = HostRegistry("trainers")
TESTERS = HostRegistry("testers")
OPTIMIZERS = HostRegistry("optimizers")
SCHEDULERS = HostRegistry("schedulers")


def build_model(cfg: dict) -> Any:
    """Build a model from a deep copy of ``cfg``, which a constructor may therefore change."""
    return MODELS.build(copy.deepcopy(cfg))


def build_dataset(cfg: dict) -> Any:
    """Build a dataset of the DATASETS registry."""
    return DATASETS.build(cfg)
