"""One probe for several sources of features."""

import numpy as np
import pytest

from dos_plugin.commands.probe import format_table
from dos_plugin.probing.compare import probe_run
from dos_plugin.probing.probe import ProbeSettings
from dos_plugin.probing.scans import ScanSource
from dos_plugin.runs.run import open_run
from tests.tiny_run import write_run, write_scans

SETTINGS = ProbeSettings(seeds=(0, 1), steps=40, knn_bank=200, knn_queries=200)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    for split in ("train", "val"):
        write_scans(root / "data", split, 2)
    return open_run(write_run(root / "run", root / "data"))


@pytest.fixture(scope="module")
def val(run):
    return list(ScanSource(run, split="val"))


def test_probe_run_gives_all_sources_and_names_classes(run, val):
    train = list(ScanSource(run, split="train"))
    result = probe_run(run, train, val, ("ground", "box", "pole"), settings=SETTINGS)
    assert list(result) == ["student", "teacher", "random", "raw"]
    assert [result[key]["channels"] for key in result] == [48, 48, 48, 5]
    for entry in result.values():
        assert set(entry["iou"]) == {"ground", "box", "pole"}
        assert entry["miou"] == pytest.approx(np.mean(list(entry["iou"].values())))
        assert len(entry["miou_seeds"]) == 2
        assert 0 < entry["knn"]["miou"] <= 100
    assert "random weights" in format_table(result)
    with pytest.raises(ValueError, match="source: got 'x'"):
        probe_run(run, train, val, sources=["x"])


def test_probe_without_labels_or_scans_is_refused(run, val, tmp_path):
    write_scans(tmp_path, "val", 1, labels=False)
    bare = list(ScanSource(run, tmp_path, "val"))
    with pytest.raises(ValueError, match="scan-0 and 1 more scans have no labels"):
        probe_run(run, bare, bare)
    with pytest.raises(ValueError, match="scans: got none"):
        probe_run(run, [], val)
