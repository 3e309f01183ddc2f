"""mmcv without its compiled operators: each is there, and raises as soon as it is called."""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

EXTENSION = "mmcv._ext"


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name == EXTENSION else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        def operator(name):
            if name.startswith("__"):
                raise AttributeError(name)

            def refuse(*_, **__):
                raise RuntimeError(f"{EXTENSION}.{name}: compiled, and not part of these tests")

            return refuse

        module.__getattr__ = operator


def install() -> None:
    """Let mmcv be imported in this process; changes nothing where it is complete."""
    try:
        importlib.import_module(EXTENSION)
    except ModuleNotFoundError as error:
        if error.name != EXTENSION:
            raise
        sys.meta_path.insert(0, _Finder())
