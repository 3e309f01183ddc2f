"""Which host is active, where it lies and how old it is; nothing of a host is imported here."""

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dos_plugin.commands.doctor.rows import Row
from dos_plugin.cpu.checkout import DEFAULT_CHECKOUT, find_pointcept
from dos_plugin.host import EMBEDDED

OLDEST = (1, 6, 0)
CLONE = "git clone https://github.com/Pointcept/Pointcept"


class Found(NamedTuple):
    """A host as found on disk.

    Attributes:
        name: package name, ``minihost`` for the embedded host.
        root: folder that holds the package, None if there is none.
        importable: the interpreter finds the package by itself.
    """

    name: str
    root: Path | None
    importable: bool

    @property
    def real(self) -> bool:
        """It is Pointcept or a fork, not the embedded host."""
        return self.name != EMBEDDED


def find_host() -> Found:
    """The host that a training would use here; the working directory counts as importable.

    ``dos-plugin`` has another first entry in ``sys.path`` than the host's scripts, which run with
    ``PYTHONPATH=./`` in the checkout.
    """
    name = os.environ.get("DOS_HOST") or "pointcept"
    if name == EMBEDDED:
        return Found(EMBEDDED, None, True)
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin is not None:
        return Found(name, Path(spec.origin).parents[1], True)
    if (Path.cwd() / name / "__init__.py").is_file():
        return Found(name, Path.cwd(), False)
    if not os.environ.get("DOS_HOST"):
        return Found(EMBEDDED, None, True)
    return Found(name, find_pointcept() if name == "pointcept" else None, False)


def host_rows(found: Found) -> Iterator[Row]:
    """Rows about the active host and a checkout that is not active."""
    if not found.real:
        chosen = os.environ.get("DOS_HOST")
        if chosen and (Path.cwd() / "pointcept").is_dir():
            text = "the embedded one, for DOS_HOST says so: the checkout here would not know DOS"
            yield Row("warn", "host", text, "unset DOS_HOST")
        else:
            yield Row("ok", "host", "the embedded one (python -m dos_plugin.minihost)")
        checkout = find_pointcept()
        if checkout is None:
            text = f"none at $POINTCEPT_ROOT or {DEFAULT_CHECKOUT}; needed for large trainings only"
            yield Row("ok", "host checkout", text, CLONE)
        else:
            text = f"{checkout}, {version(checkout) or 'version unknown'}, not active here"
            yield Row("ok", "host checkout", text, "DOS_HOST=pointcept makes it the active host")
        return
    yield Row("ok", "host", f"package {found.name!r}")
    if found.root is None:
        yield Row(
            "missing",
            "host checkout",
            f"no package {found.name!r} in PYTHONPATH or the working directory",
            (CLONE if found.name == "pointcept" else "correct DOS_HOST, or get that package")
            + "\nthen, in its folder: PYTHONPATH=./ dos-plugin doctor",
        )
        return
    known = version(found.root)
    where = f"{found.root}, {known or 'version unknown'}"
    numbers = tuple(map(int, re.findall(r"\d+", known)[:3])) if known else OLDEST
    if numbers < OLDEST:
        oldest = "v" + ".".join(map(str, OLDEST))
        mend = f"git -C {found.root} fetch --tags && git -C {found.root} checkout v1.7.0"
        yield Row("missing", "host checkout", f"{where}: older than {oldest}", mend)
        return
    mend = "" if found.importable else f"export PYTHONPATH={found.root}"
    yield Row("ok", "host checkout", where, mend)


def version(root: Path) -> str:
    """Version of a checkout: of its git tags, else the newest its README speaks of, else empty."""
    if (root / ".git").exists():
        try:
            done = subprocess.run(
                ["git", "-C", str(root), "describe", "--tags"],
                capture_output=True,
                text=True,
                timeout=10,
            )
        except (OSError, subprocess.SubprocessError):
            pass  # no git here
        else:
            if done.returncode == 0 and re.match(r"v?\d+\.\d+", done.stdout):
                return done.stdout.strip()
    readme = root / "README.md"
    if not readme.is_file():
        return ""
    text = readme.read_text(encoding="utf-8", errors="replace")
    spoken_of = [tuple(map(int, v)) for v in re.findall(r"\bv(\d+)\.(\d+)\.(\d+)\b", text)]
    return f"v{'.'.join(map(str, max(spoken_of)))} (by its README)" if spoken_of else ""
