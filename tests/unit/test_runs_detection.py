"""Scores of a detector in a folder, and their report."""

import json

import numpy as np
import pytest

from dos_plugin.drawing.render import save_png
from dos_plugin.reports.evidence import Facts
from dos_plugin.reports.write import write_report
from dos_plugin.runs.detection import read_scores
from dos_plugin.runs.record import read_record

SUMMARY = dict(
    mean_ap=0.25,
    nd_score=0.3,
    mean_dist_aps=dict(car=0.1, tram=float("nan"), bus=0.4),
    tp_errors=dict(trans_err=0.5),
)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "eval/epoch_20/metrics_summary.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(SUMMARY))
    save_png(np.zeros((4, 4, 3), dtype=np.uint8), tmp_path / "boxes.png")
    return tmp_path


def test_report_of_an_evaluated_detector(folder):
    record = read_record(folder)
    assert record.kind == "detection run" and not record.missing
    page = write_report(record, [], Facts())
    html = page.read_text()
    assert "Detection report" in html and "mAP, %" in html and "boxes.png" in html
    assert html.index("<td>bus</td>") < html.index("<td>car</td>")  # by falling AP
    content = json.loads((folder / "report/report.json").read_text())
    assert content["kind"] == "detection run"
    class_ap = content["detection"]["class_ap"]
    assert list(class_ap.items()) == [("bus", 0.4), ("car", 0.1), ("tram", None)]
    assert content["verdict"]["level"] == "unknown"
    assert "random weights" in content["verdict"]["reasons"][0]


def test_what_is_missing_is_named(folder):
    (folder / "eval/epoch_20/metrics_summary.json").unlink()
    record = read_record(folder)
    assert [(entry.what, entry.optional) for entry in record.missing] == [
        ("metrics_summary.json", True)
    ]
    (folder / "metrics_summary.json").write_text('{"mean_ap": 0.5}')
    (folder / "boxes.png").write_bytes((folder / "boxes.png").read_bytes()[:-5])
    broken = {entry.what: entry.problem for entry in read_record(folder).missing}
    assert broken["boxes.png"] == "cut off"
    assert "mean_dist_aps: got None, expected numbers by class" in broken["metrics_summary.json"]
    with pytest.raises(ValueError, match="mean_ap: got 'x', expected a number"):
        (folder / "metrics_summary.json").write_text('{"mean_ap": "x"}')
        read_scores(folder / "metrics_summary.json")


def test_other_folders_are_refused_as_before(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(FileNotFoundError, match="nothing of a run there"):
        read_record(tmp_path)
