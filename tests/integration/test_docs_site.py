"""``make docs``: the site is built without a warning, and asks nothing of others."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]

pytest.importorskip("material", reason="needs the extra 'docs'")
pytestmark = pytest.mark.skipif(not (ROOT / "mkdocs.yml").is_file(), reason="needs the source tree")


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


def test_every_page_is_there_readme_first(site):
    for page in (ROOT / "docs").rglob("*.md"):
        place = site / page.relative_to(ROOT / "docs").with_suffix("") / "index.html"
        assert place.is_file(), place
    title = re.search(r"^# (.+)", (ROOT / "README.md").read_text(), re.MULTILINE)[1]
    first = (site / "index.html").read_text()
    assert f'<h1 id="{title}">{title}' in first
    assert 'src="images/demo.png"' in first and (site / "images/demo.png").is_file()
    assert 'href="own-data/#your-sensor"' in first


def test_a_notebook_is_a_page_that_links_its_file(site):
    assert 'href="../walk/"' in (site / "own-data/index.html").read_text()
    page = (site / "walk/index.html").read_text()
    assert 'href="../walk.ipynb"' in page and (site / "walk.ipynb").is_file()
    assert 'src="../images/walk-features.png"' in page


def test_links_out_of_docs_stay_as_text(site):
    page = (site / "reliability/index.html").read_text()
    assert "tests/faults/test_crash.py" in page
    assert not re.search(r'href="[^"]*test_crash\.py', page)
    assert not list(site.rglob("*.py"))


def test_with_a_forge_they_lead_to_it():
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs/hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="reference/models.md"))
    config = SimpleNamespace(repo_url="https://forge.example/dos/")
    text = "[a](../../setup.py#L3), [b](../view.md), [c](https://x.example), ![d](../../e.png)"
    assert hooks.on_page_markdown(text, page, config, None) == text.replace(
        "../../setup.py", "https://forge.example/dos/blob/main/setup.py"
    )


def test_pages_fetch_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        fetched = re.findall(
            r'<(?:link|script|img)\b[^>]*?(?:href|src)="(https?:[^"]+)', page.read_text()
        )
        assert not fetched, (page, fetched)


@pytest.mark.parametrize("wrong", ["no-such-page.md", "method.md#no-such-part", "../no-such.py"])
def test_a_link_to_nothing_stops_it(tmp_path, wrong):
    for file in (*ROOT.glob("*.md"), ROOT / "CITATION.cff", ROOT / "mkdocs.yml"):
        shutil.copy(file, tmp_path)
    for name in ("docs", "tests", "dos_plugin", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "docs/view.md", "a") as page:
        page.write(f"\n[a page]({wrong})\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "view.md" in done.stderr and wrong.removeprefix("../") in done.stderr
