"""Every code block of docs/python.md, in their order, in a folder with a small run and a drive."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("spconv")
pytest.importorskip("torch_pointcloud")
pytest.importorskip("pypcd4")
pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")

import huggingface_hub
from pypcd4 import PointCloud

from dos_plugin import cli
from tests.tiny_run import write_run, write_scans

PAGE = Path(__file__).parents[2] / "docs" / "python.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="needs the source tree")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_scans(tmp_path / "data/dos-demo", "train", 3)
    write_run(tmp_path / "exp/dos/demo", tmp_path / "data/dos-demo")
    (tmp_path / "drive").mkdir()
    for index in range(3):
        scene = tmp_path / f"data/dos-demo/train/scan-{index}"
        rows = np.hstack([np.load(scene / "coord.npy"), np.load(scene / "strength.npy")])
        cloud = PointCloud.from_xyzi_points(rows.astype(np.float32))
        cloud.save(tmp_path / f"drive/{10 + index:06d}.pcd")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    # The download itself: tests/unit/test_runs_hub.py.
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: "hub/dos-demo")
    return tmp_path


def test_the_blocks_of_the_page(folder, capsys):
    names = {}
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert {language for language, _ in blocks} == {"python", "sh", "text"}
    for language, code in blocks:
        if language == "python":
            exec(compile(code, str(PAGE), "exec"), names)
        elif language == "sh":
            for line in code.splitlines():
                program, *words = shlex.split(line)
                assert program == "dos-plugin" and cli.main(words) == 0, line
    said = capsys.readouterr().out
    encoder, error = [code for language, code in blocks if language == "text"]
    assert error in said
    # The text is of the demo's run, with other numbers.
    words = [line[:13] for line in encoder.splitlines()]
    assert [line[:13] for line in said.splitlines()[: len(words)]] == words
    assert (folder / "features.png").stat().st_size > 1000
    assert names["feat"].shape == (2100, 48) and names["feat"].dtype == np.float16
    assert names["predicted"].shape == (2100,)
    assert str(names["encoder"]).startswith("Encoder of hub/dos-demo")
