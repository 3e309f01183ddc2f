"""Where the real host is checked out, and how to run Python on it."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

DEFAULT_CHECKOUT = Path("~/.cache/dos-plugin/Pointcept")


def find_pointcept() -> Path | None:
    """Folder of a Pointcept checkout: ``POINTCEPT_ROOT`` if set, else the usual cache folder.

    Returns:
        The folder, or None where there is no ``pointcept`` package in it.
    """
    root = Path(os.environ.get("POINTCEPT_ROOT") or DEFAULT_CHECKOUT).expanduser()
    return root.resolve() if (root / "pointcept" / "__init__.py").is_file() else None


def run_on_host(
    *arguments: str | Path,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m dos_plugin.cpu *arguments`` with the host importable.

    Args:
        arguments: a script of the host (relative to ``cwd``) or ``-c code`` or ``-m module``,
            and what follows it.
        cwd: working directory; the checkout if None.
        env: variables to set beside those of this process.
        timeout: seconds.

    Returns:
        The finished process, with stdout and stderr as text.

    Raises:
        FileNotFoundError: there is no checkout.
    """
    root = find_pointcept()
    if root is None:
        raise FileNotFoundError(
            f"no Pointcept checkout at POINTCEPT_ROOT or {DEFAULT_CHECKOUT}; clone it there or "
            "set POINTCEPT_ROOT"
        )
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    variables = {**os.environ, **(env or {}), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command: Sequence[str] = [sys.executable, "-m", "dos_plugin.cpu", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd or root, env=variables, timeout=timeout, capture_output=True, text=True
    )
