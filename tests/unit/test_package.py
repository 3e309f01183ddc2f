"""The package itself: light to import, with lazy public names."""

import subprocess
import sys


def test_importing_it_imports_nothing_else():
    code = """
import sys, dos_plugin
loaded = [m for m in sys.modules if m.startswith("dos_plugin.") or m in ("torch", "numpy")]
assert not loaded, loaded
assert {"load", "Encoder", "Scan", "Features"} <= set(dir(dos_plugin))
try:
    dos_plugin.lod
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "module 'dos_plugin' has no attribute 'lod'" in done.stdout
