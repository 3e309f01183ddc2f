"""Where OpenPCDet is, and what to do where it cannot be imported."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType


def add_checkout(start: Path) -> Path | None:
    """Make ``pcdet`` of the checkout around a file or folder importable, in children, too.

    Returns:
        The root of the checkout; None if there is none, and ``pcdet`` must be installed.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / "pcdet" / "__init__.py").is_file():
            if str(folder) not in sys.path:
                sys.path.insert(0, str(folder))
            paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
            if str(folder) not in paths:
                os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), *paths]))
            return folder
    return None


def import_host(module: str) -> ModuleType:
    """Import a module of the host.

    Raises:
        ImportError: Where that fails; says what to do.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} cannot be imported ({error}): {_advice(error)}") from error


def _advice(error: ImportError) -> str:
    name = error.name or ""
    if name == "pcdet":
        return (
            "run a script of an OpenPCDet checkout, with its tools as working directory, or "
            "install one with `python setup.py develop`"
        )
    if name.startswith(("pcdet.version", "pcdet.ops")) or name.endswith("_cuda"):
        return (
            "the checkout is not built; `python setup.py develop` in it compiles its operators "
            "(iou3d_nms_cuda and others), which needs a CUDA toolkit of the version that torch "
            "was built with"
        )
    return (
        f"OpenPCDet imports {name or 'a package that is missing'}; pip install it, and what "
        "requirements.txt of the checkout names"
    )
