"""docs/reference/ is what docs/reference.py writes out of the code as it is now."""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs/reference.py"

pytest.importorskip("griffe", reason="needs the extra 'docs'")
pytest.importorskip("spconv", reason="the embedded host needs the extra 'demo'")
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="needs the source tree")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("docs_reference", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_those_of_the_code(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {page.name: page.read_text() for page in (ROOT / "docs/reference").iterdir()}
    written = {page.name: page.read_text() for page in tmp_path.iterdir()}
    assert written.keys() == pages.keys()
    stale = [name for name in pages if written[name] != pages[name]]
    assert not stale, f"{stale} of docs/reference: run `python docs/reference.py` and commit it"


def test_everything_registered_is_there():
    from dos_plugin.register import COMPONENTS

    pages = "".join(page.read_text() for page in (ROOT / "docs/reference").iterdir())
    names = [name for classes in COMPONENTS.values() for name in classes]
    assert len(names) > 20
    assert [name for name in names if f"\n## {name}\n" not in pages] == []


class Two:
    """Takes two options.

    Args:
        first: Metres, a
            long one.
        second: :class:`~a.b.Thing` or ``"x" | "y"``.
    """

    def __init__(self, first: float, second: str | None = None) -> None:
        pass


def test_a_class(script):
    text = "\n".join(script.component("DetectionTester-like", Two))
    assert "| `first` | `float` | required | Metres, a long one. |" in text
    assert '| `second` | `str or None` | `None` | `Thing` or `"x" \\| "y"`. |' in text
    assert "[tests/integration/test_docs_reference.py](../../tests/" in text


def test_an_option_without_a_word_is_an_error(script):
    class Three(Two):
        __doc__ = Two.__doc__

        def __init__(self, third: int, **more: float) -> None:
            pass

    with pytest.raises(ValueError, match="Three differ in third"):
        list(script.component("three", Three))


def test_a_command(script):
    parser = argparse.ArgumentParser(prog="try", epilog="examples:\n  try a \\\n      b\nmore")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--range", type=float, default=0.0, metavar="M", help="metres, 99 %%")
    parser.add_argument("--kind", choices=("a", "b"), required=True)
    text = "\n".join(script.command(parser))
    assert "```sh\ntry a \\\n    b\n```" in text
    assert "| `WORDS …` | | |" in text
    assert "| `--range` `M` | `0.0` | metres, 99 % |" in text
    assert "| `--kind` `a or b` | required | |" in text
