"""The parts of a report, and a whole one of a small run."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from dos_plugin.probing.probe import ProbeSettings
from dos_plugin.probing.scans import ScanSource
from dos_plugin.reports.evidence import Facts
from dos_plugin.reports.write import probe_into, write_report
from dos_plugin.runs.record import read_record
from dos_plugin.runs.run import open_run
from tests.tiny_run import write_run, write_scans
from tests.unit.test_runs_scalars import log
from tests.viewer_pages import read_page

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


def test_report_is_one_page_without_network(run, val, tmp_path):
    log(run.folder, np.linspace(3, 1, 30))
    facts = Facts(commands=["a & b"], seconds={"pretrain": 61.0}, peak_memory_mb=512.0)
    train = ScanSource(run, split="train")
    probe_into(facts, run, train, val, ("ground", "box", "pole"), SETTINGS)
    page = write_report(
        read_record(run.folder), val, facts, ("ground", "box", "pole"), folder=tmp_path
    )
    html = page.read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', html)
    assert len(sources) >= 10
    sources.remove("view.html")
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    header, views = read_page(tmp_path / "view.html")
    assert [view["name"] for view in header["scans"]] == ["scan-0", "scan-1"]
    assert [mode["key"] for mode in header["modes"]] == [
        *("label", "strength", "height", "components", "prototype")
    ]
    assert header["modes"][0]["names"] == ["ground", "box", "pole"]
    assert [len(view["features"]) for view in views] == [len(scan.coord) for scan in val]
    assert "<script" not in html and "http" not in re.sub(r"base64,[^\"]*", "", html)
    for data in re.findall(r"base64,([^\"]+)", html):
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert "a &amp; b" in html

    content = json.loads((tmp_path / "report.json").read_text())
    for source in ("student", "teacher", "random", "raw"):
        assert content["probe"][source]["miou"] == facts.probe[source]["miou"]
    assert f"{content['probe']['student']['miou']:.1f}" in html
    assert content["seconds"]["pretrain"] == 61.0
    assert content["seconds"]["total"] > 61.0
    assert content["peak_memory_mb"] == 512.0
    assert content["seed"] == 3
    assert content["training"]["steps"] == 29
    assert content["config"]["model"]["num_prototypes"] == 20
    assert content["prototypes"]["num_prototypes"] == 20
    assert torch.__version__.startswith(content["versions"]["torch"])
    for name in ("label", "pca", "prototype"):
        for view, size in (("top", (720, 720)), ("view", (1120, 640))):
            assert Image.open(tmp_path / f"{name}-{view}.png").size == size


def test_report_of_scans_without_labels_leaves_probe_and_labels_out(run, tmp_path):
    write_scans(tmp_path / "data", "train", 1, labels=False)
    scans = list(ScanSource(run, tmp_path / "data", "train"))
    record = read_record(run.folder)
    html = write_report(record, scans, Facts(), folder=tmp_path / "report").read_text()
    assert "linear probe" not in html and "<h3>Labels</h3>" not in html
    assert "<h3>DOS features</h3>" in html
    assert "probe" not in json.loads((tmp_path / "report" / "report.json").read_text())
    assert not (tmp_path / "report" / "label-top.png").exists()
