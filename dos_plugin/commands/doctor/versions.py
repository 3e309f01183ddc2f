"""What ``dos-plugin --version`` says; nothing of it is imported to find out."""

import platform
from importlib import metadata

from dos_plugin import __version__
from dos_plugin.commands.doctor.environment import installed_spconv
from dos_plugin.commands.doctor.hosts import find_host, version


def versions() -> dict[str, str]:
    """Version, or what is known, of the plugin and what it stands on."""
    host = find_host()
    if not host.real:
        known = "the embedded one"
    elif host.root is None:
        known = f"{host.name}, not found"
    else:
        known = f"{host.name} {version(host.root) or 'of unknown version'} in {host.root}"
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = "not installed"
    spconv = ", ".join(f"{name} {number}" for name, number in sorted(installed_spconv().items()))
    return {
        "dos-plugin": __version__,
        "host": known,
        "torch": torch,
        "spconv": spconv.removeprefix("spconv ") or "not installed",
        "python": platform.python_version(),
    }
