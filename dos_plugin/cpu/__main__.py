"""Command line, like python's own: ``python -m dos_plugin.cpu (SCRIPT | -c CODE | -m MODULE)``."""

import os
import runpy
import sys
from pathlib import Path
from types import ModuleType

from dos_plugin.cpu import activate

USAGE = "usage: python -m dos_plugin.cpu (SCRIPT | -c CODE | -m MODULE) [ARGUMENTS ...]"


def main(arguments: list[str]) -> None:
    """Fills in what this machine lacks, then runs what the arguments name as ``__main__``.

    Args:
        arguments: what follows ``python -m dos_plugin.cpu`` on the command line.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0 if arguments else 2)
    first, rest = arguments[0], arguments[1:]
    if first in ("-c", "-m") and not rest:
        raise SystemExit(f"dos-plugin cpu: argument expected for {first}; {USAGE}")
    if first.startswith("-") and first not in ("-c", "-m"):
        raise SystemExit(f"dos-plugin cpu: unknown option {first}; {USAGE}")
    if not first.startswith("-") and not Path(first).is_file():
        raise SystemExit(
            f"dos-plugin cpu: no such script: {first} (working directory {os.getcwd()})"
        )

    activate()
    # `python -m` has put the working directory first, which is what -c and -m want too, and what
    # the host asks for with PYTHONPATH=./.
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        module = ModuleType("__main__")
        sys.modules["__main__"] = module
        exec(compile(rest[0], "<string>", "exec"), module.__dict__)
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        script = Path(first).resolve()
        sys.argv = arguments
        sys.path[:0] = [str(script.parent), *_checkout_of(script)]
        runpy.run_path(str(script), run_name="__main__")


def _checkout_of(script: Path) -> list[str]:
    """The checkout a host script lies in, so that it also runs from other directories."""
    package = os.environ.get("DOS_HOST") or "pointcept"
    return [str(p) for p in script.parents if (p / package / "__init__.py").is_file()][:1]


if __name__ == "__main__":
    main(sys.argv[1:])
