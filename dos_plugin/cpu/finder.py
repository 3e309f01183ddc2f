"""Imports of absent packages: a finder that makes up the modules of the table in packages.py."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from dos_plugin.cpu.packages import PACKAGES, REQUIRED, Package
from dos_plugin.cpu.refused import StandInModule

# What a package that is installed but does not run here may raise while it is imported.
_BROKEN = (ImportError, OSError, RuntimeError, AttributeError)


class StandInFinder(MetaPathFinder, Loader):
    """Answers imports of the given packages and of anything below them, and of nothing else.

    It goes through importlib like any other finder, so that stand-ins have a ``__spec__``:
    ``importlib.util.find_spec`` in other libraries fails on modules without one.
    """

    def __init__(self, packages: Sequence[Package]) -> None:
        self.packages = {package.name: package for package in packages}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Spec of a made-up package; None for packages that are not in the table."""
        if fullname.partition(".")[0] not in self.packages:
            return None
        return ModuleSpec(fullname, self, origin="dos_plugin.cpu", is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty module whose names are refused when called."""
        return StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Fills in the names that the table promises."""
        package = self.packages[module.__name__.partition(".")[0]]
        module.advice = package.advice  # type: ignore[attr-defined]
        if module.__name__ in package.provides:
            provider, names = package.provides[module.__name__]
            for name in names:
                setattr(module, name, getattr(importlib.import_module(provider), name))


def install(named: Sequence[str] = (), others: bool = True) -> list[str]:
    """Puts stand-ins in front of packages of the table.

    Installed packages are imported first, while no stand-in exists: none of them takes a stand-in
    for the real thing.

    Args:
        named: Import names of packages that are replaced, installed or not.
        others: Whether those that do not run on this machine without CUDA are replaced, too.

    Returns:
        One line per stand-in.

    Raises:
        ValueError: If a name is not in the table.
    """
    known = [package.name for package in PACKAGES]
    if unknown := [name for name in named if name not in known]:
        raise ValueError(f"no stand-in for {', '.join(unknown)}; there are {', '.join(known)}")
    missing, lines = [], _define_torchvision_operators() if others else []
    for package in PACKAGES:
        if package.name in named:
            _forget(package.name)
            reason: str | None = "named"
        else:
            reason = _why_missing(package) if others else None
        if reason is None:
            continue
        missing.append(package)
        names = [name for _, provided in package.provides.values() for name in provided]
        covers = ", ".join(dict.fromkeys(names)) or "import only"
        lines.append(f"{package.name} ({reason}): {covers}")
    if missing:
        sys.meta_path.insert(0, StandInFinder(missing))
    return lines


def missing_requirements() -> list[str]:
    """Names for pip of packages the host needs and nothing stands in for."""
    return [pip for name, pip in REQUIRED.items() if importlib.util.find_spec(name) is None]


def _why_missing(package: Package) -> str | None:
    """Why the package does not run here, or None if it does."""
    if importlib.util.find_spec(package.name) is None:
        return "absent"
    if package.cuda_only:
        _forget(package.name)
        return "useless without CUDA"
    try:
        importlib.import_module(package.name)
    except _BROKEN as error:
        _forget(package.name)
        message = str(error).partition("\n")[0] or type(error).__name__
        return f"installed, but fails to import: {message}"
    return None


def _define_torchvision_operators() -> list[str]:
    """Lets an installed torchvision be imported where its compiled operators do not load.

    Beside a CPU torch, a CUDA build of torchvision cannot load them, and then stops at describing
    two operators that nobody defined. Their mere definition lets the import go through.

    Returns:
        One line if they had to be defined.
    """
    import torch

    if importlib.util.find_spec("torchvision") is None:
        return []
    try:
        importlib.import_module("torchvision")
    except _BROKEN as error:
        _forget("torchvision")
        if "torchvision::" not in str(error):
            return []
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
        return ["torchvision (compiled operators do not load): nms and qnms named, not computed"]
    return []


# Definitions vanish with the Library object that made them.
_KEPT: list[object] = []


def _forget(name: str) -> None:
    for module in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
        del sys.modules[module]
