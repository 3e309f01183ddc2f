"""docs/walk.ipynb from its first cell to the last, in an empty folder, as Jupyter runs it."""

import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nbclient", reason="needs the extra 'dev'")
pytest.importorskip("ipykernel", reason="needs the extra 'dev'")
pytest.importorskip("spconv", reason="the embedded host needs the extra 'demo'")

import nbclient
import nbformat
from matplotlib.pyplot import imread

from dos_plugin.scenes import generate_scan
from tests.viewer_pages import read_page

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs/walk.ipynb"
SCANS = ("train/first", "train/second", "train/third", "val/fourth")

pytestmark = pytest.mark.skipif(not NOTEBOOK.is_file(), reason="needs the source tree")


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def walked(notebook, tmp_path_factory):
    """The folder that the notebook ran in; its outputs are in the notebook then."""
    folder = tmp_path_factory.mktemp("walk")
    programs = Path(sys.executable).parent  # as in an environment that is active
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        # Stops at the first cell that fails, and shows it.
        nbclient.NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=1200,
            resources={"metadata": {"path": str(folder)}},
        ).execute()
    return folder


def printed(notebook, start: str) -> list[str]:
    """Lines of all outputs that begin so."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    text = "".join(out.text for out in outputs if out.output_type == "stream")
    return [line for line in text.splitlines() if line.startswith(start)]


def test_it_is_kept_without_outputs():
    kept = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(kept)
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)


def test_each_format_gives_the_scan_that_was_made(walked):
    for seed, name in enumerate(SCANS):
        made = generate_scan(seed)
        for key in ("coord", "strength", "segment"):
            found = np.load(walked / f"data/mine/{name}/{key}.npy")
            np.testing.assert_array_equal(found, made[key], err_msg=f"{name} {key}")
    suffixes = {path.suffix for path in (walked / "raw/train").iterdir()}
    assert suffixes == {".bin", ".pcd", ".ply"}


def test_run_and_probe(notebook, walked):
    assert (walked / "exp/dos/mine/model/model_last.pth").is_file()
    (trained,) = printed(notebook, "  trained on")
    assert "30 steps" in trained
    probe = json.loads((walked / "probe.json").read_text())["probe"]
    assert set(probe) == {"student", "teacher", "random", "raw"}
    for source, entry in probe.items():
        for value in (entry["miou"], entry["accuracy"], entry["knn"]["miou"]):
            assert 0 < value <= 100, source


def test_features(notebook, walked):
    points = len(np.load(walked / "data/mine/val/fourth/coord.npy"))
    assert printed(notebook, "per point") == [f"per point ({points}, 416)"]


def test_pictures(walked):
    picture = imread(walked / "features.png")[..., :3]
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    header, scans = read_page(walked / "view.html")
    assert [mode["key"] for mode in header["modes"]] == [
        *("strength", "height", "components", "prototype")
    ]
    assert len(scans) == 1 and header["scans"][0]["name"] == "fourth.bin"


def test_the_page_has_all_cells_and_the_pictures(notebook):
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs/hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = hooks.notebook_page(NOTEBOOK)
    places = [page.index(cell.source.removeprefix("%%bash\n")) for cell in notebook.cells]
    assert places == sorted(places)
    assert page.count("```sh\ndos-plugin ") == page.count("```sh")
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", page)
    assert (NOTEBOOK.parent / picture).is_file()
