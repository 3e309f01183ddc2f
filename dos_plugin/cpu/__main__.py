"""Command line, like python's own: ``python -m dos_plugin.cpu (SCRIPT | -c CODE | -m MODULE)``.

``--stand-ins NAME,...`` in front of it replaces these packages, also on a machine with CUDA.
"""

import importlib.util
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType

from dos_plugin.cpu import STAND_INS, activate
from dos_plugin.cpu.checkout import find_pointcept

USAGE = (
    "usage: python -m dos_plugin.cpu [--stand-ins NAME,...] (SCRIPT | -c CODE | -m MODULE) "
    "[ARGUMENTS ...]\n"
    "example: python -m dos_plugin.cpu --stand-ins torch_scatter,torch_cluster tools/train.py ..."
)


def main(arguments: list[str]) -> None:
    """Fills in what this machine lacks, then runs what the arguments name as ``__main__``.

    Args:
        arguments: what follows ``python -m dos_plugin.cpu`` on the command line.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0 if arguments else 2)
    if arguments[0] == "--stand-ins":
        if len(arguments) < 3:
            raise SystemExit(f"dos-plugin cpu: names and a script expected; {USAGE}")
        os.environ[STAND_INS] = arguments[1]  # children see it, too
        arguments = arguments[2:]
    first, rest = arguments[0], arguments[1:]
    if first in ("-c", "-m") and not rest:
        raise SystemExit(f"dos-plugin cpu: argument expected for {first}; {USAGE}")
    if first.startswith("-") and first not in ("-c", "-m"):
        raise SystemExit(f"dos-plugin cpu: unknown option {first}; {USAGE}")
    if not first.startswith("-") and not Path(first).is_file():
        raise SystemExit(
            f"dos-plugin cpu: no such script: {first} (working directory {os.getcwd()})"
        )

    try:
        activate()
    except ValueError as error:
        raise SystemExit(f"dos-plugin cpu: {STAND_INS}: {error}") from None
    if first == "-c":
        _add_host(None)
        sys.argv = ["-c", *rest[1:]]
        module = ModuleType("__main__")
        sys.modules["__main__"] = module
        exec(compile(rest[0], "<string>", "exec"), module.__dict__)
    elif first == "-m":
        _add_host(None)
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        script = Path(first).resolve()
        sys.argv = arguments
        sys.path.insert(0, str(script.parent))
        _add_host(script)
        runpy.run_path(str(script), run_name="__main__")


def _add_host(script: Path | None) -> None:
    """Makes the host importable where PYTHONPATH and the working directory do not.

    `python -m` has already put the working directory on sys.path, which is what the host's own
    instructions get with PYTHONPATH=./ in its checkout.

    Args:
        script: the script about to run; the checkout it lies in is preferred.
    """
    package = os.environ.get("DOS_HOST") or "pointcept"
    roots = [p for p in script.parents if (p / package / "__init__.py").is_file()] if script else []
    if roots:
        sys.path.insert(1, str(roots[0]))
    elif importlib.util.find_spec(package) is None and (root := find_pointcept()):
        sys.path.append(str(root))


if __name__ == "__main__":
    main(sys.argv[1:])
