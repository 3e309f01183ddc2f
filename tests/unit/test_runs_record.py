"""Reports of runs that are unfinished, damaged or of something else."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch

from dos_plugin import cli
from dos_plugin.runs.record import read_record
from dos_plugin.runs.scalars import read_events
from tests.tiny_run import write_run, write_scans
from tests.unit.test_runs_log import train, write


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run whose log says that two of three epochs are done, and its scans, without labels."""
    root = tmp_path_factory.mktemp("whole")
    write_scans(root / "data", "train", 1, labels=False)
    run = write_run(root / "run", root / "data")
    config = (run / "config.py").read_text().strip()
    lines = [f"Config:\n{config}", train(1, 2, 3.0), train(2, 2, 2.5), "Train result: loss: 2.5 "]
    write(run / "train.log", lines, "pointcept")
    log_events(run, [3.5, 3.0, 2.75, 2.5])
    return run


@pytest.fixture
def run(whole, tmp_path):
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "run")


def log_events(folder, losses):
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step, loss in enumerate(losses, 1):
            writer.add_scalar("train_batch/loss", loss, step)
            writer.add_scalar("params/momentum", 0.99, step)


def missing(record):
    return {entry.what: entry for entry in record.missing if not entry.optional}


def report(run, capsys, *options):
    """The command's status, page, content and errors."""
    out = run.parent / "report"
    status = cli.main(["report", str(run), "--no-probe", "--out", str(out), *options])
    said = capsys.readouterr()
    page = (out / "report.html").read_text() if status == 0 else ""
    content = json.loads((out / "report.json").read_text()) if status == 0 else {}
    return status, page, content, said.err


def test_a_whole_run_misses_nothing(whole):
    record = read_record(whole)
    assert not record.missing
    assert record.kind == "DOS pretraining" and record.checkpoint_epoch == 1
    assert (record.epochs_done, record.epochs, record.state) == (2, 3, "running")
    np.testing.assert_array_equal(record.curves["train_batch/loss"].value, [3.5, 3, 2.75, 2.5])


def test_a_log_that_was_silent_for_long_is_of_an_unfinished_run(run):
    os.utime(run / "train.log", (1, 1))
    assert read_record(run).state == "unfinished"
    write(run / "train.log", [train(3, 2, 1.0), "Train result: loss: 1.0 "])
    assert read_record(run).state == "finished"
    write(run / "train.log", [train(2, 2, 1.0), ("ERROR", "ValueError: no more")])
    assert read_record(run).state == "unfinished"


def test_without_config_the_one_in_the_log_is_taken(run):
    expected = read_record(run).config.to_dict()
    (run / "config.py").unlink()
    record = read_record(run)
    assert missing(record)["config.py"].problem == "not there"
    assert "taken from train.log" in missing(record)["config.py"].remedy
    assert record.config.to_dict()["model"] == expected["model"]


@pytest.mark.parametrize("damage", ["gone", "cut off", "without model", "raises"])
def test_a_config_that_cannot_be_read_is_named_and_curves_are_shown(run, capsys, damage):
    path = run / "config.py"
    text = path.read_text()
    path.write_text(
        {
            "gone": "",
            "cut off": text[: text.index("optimizer")][:-30],
            "without model": "epoch = 3\n",
            "raises": f"{text}\nraise RuntimeError('boom')\n",
        }[damage]
    )
    if damage == "gone":
        path.unlink()
    write(run / "train.log", [train(1, 2, 3.0)])
    status, page, content, errors = report(run, capsys)
    assert status == 0
    (entry,) = [entry for entry in content["missing"] if entry["what"] == "config.py"]
    assert "--config" in entry["remedy"]
    assert {"gone": "not there", "without model": "no model", "raises": "boom"}.get(
        damage, "SyntaxError"
    ) in entry["problem"]
    assert "missing: config.py: " in errors
    assert 'id="missing"' in page and "Loss over training batches" in page
    assert content["training"]["steps"] == 4 and content["config"] is None


def test_an_unknown_model_and_a_checkpoint_of_another_size(run, capsys):
    path = run / "config.py"
    text = (
        path.read_text().replace('"DOS-v1m1"', '"Nobody-v1"').replace("(8, 16, 24)", "(8, 16, 30)")
    )
    path.write_text(text)
    status, page, content, errors = report(run, capsys)
    assert status == 0
    found = {entry["what"]: entry["problem"] for entry in content["missing"]}
    assert "does not fit" in found["DOS features"] and "does not fit" in found["prototypes"]
    assert "Nobody-v1" in found["Random weights"]
    assert "there are none" in next(v for k, v in found.items() if k.startswith("labels of"))
    assert "Loss over training batches" in page
    assert "does not fit" in found["view.html"]
    assert errors.count("missing: ") == 5


@pytest.mark.parametrize("there", [True, False])
def test_a_data_root_that_is_not_here_or_holds_nothing(run, capsys, tmp_path, there):
    root = tmp_path / "elsewhere"
    if there:
        root.mkdir()
    status, page, content, _ = report(run, capsys, "--data", str(root))
    assert status == 0
    (entry,) = [entry for entry in content["missing"] if entry["what"] == "scans"]
    assert str(root) in entry["problem"] and "--data" in entry["remedy"]
    assert "What the network sees" not in page and "Loss over training batches" in page


def test_a_scan_that_is_damaged_is_left_out(run, capsys, tmp_path):
    write_scans(tmp_path / "data", "train", 2)
    (tmp_path / "data/train/scan-0/coord.npy").write_bytes(b"nothing")
    (run / "model" / "model_last.pth").unlink()
    status, page, content, _ = report(run, capsys, "--data", str(tmp_path / "data"))
    assert status == 0
    what = [entry["what"] for entry in content["missing"]]
    assert any(name.endswith("scan-0") for name in what)
    assert "<code>scan-1</code>" in page and "<h3>Labels</h3>" in page
    assert "<h3>Random weights</h3>" in page and "<h3>DOS features</h3>" not in page


@pytest.mark.parametrize("split", ["train", ["train", "extra"], None])
def test_a_probe_is_not_scored_on_scans_of_the_training(run, capsys, tmp_path, split):
    for name in ("train", "extra"):
        write_scans(tmp_path / "data", name, 2)
    path = run / "config.py"
    text = path.read_text()
    assert text.count('split="train"') == 1
    path.write_text(text.replace('split="train"', f"split={split!r}" if split else ""))
    out = tmp_path / "report"
    assert cli.main(["report", str(run), "--data", str(tmp_path / "data"), "--out", str(out)]) == 0
    assert "missing: probe: there is no split apart from" in capsys.readouterr().err
    content = json.loads((out / "report.json").read_text())
    assert "probe" not in content
    (entry,) = [e for e in content["missing"] if e["what"] == "scans for validation"]
    assert "val" in entry["problem"] and entry["optional"]


def test_pictures_of_an_earlier_run_are_not_shown(run, capsys, tmp_path):
    from PIL import Image

    (run / "features").mkdir()
    began = (run / "config.py").stat().st_mtime
    for name, shift in (("epoch_0000.png", -1), ("epoch_0005.png", 1)):
        Image.new("RGB", (8, 8)).save(run / "features" / name)
        os.utime(run / "features" / name, (began + shift, began + shift))
    _, page, _, _ = report(run, capsys, "--data", str(tmp_path / "none"))
    assert "<figcaption>epoch 5</figcaption>" in page
    assert "<figcaption>epoch 0</figcaption>" not in page


def test_the_scan_that_is_asked_for(run, capsys, tmp_path):
    write_scans(tmp_path / "data", "val", 22)  # more than are read for the probe
    (run / "model" / "model_last.pth").unlink()
    for number, name in ((None, "scan-0"), (1, "scan-1"), (21, "scan-9")):
        option = () if number is None else ("--scan", str(number))
        status, page, _, _ = report(run, capsys, "--data", str(tmp_path / "data"), *option)
        assert status == 0 and f"<code>{name}</code>" in page
    status, _, _, errors = report(run, capsys, "--data", str(tmp_path / "data"), "--scan", "22")
    assert status == 2 and f"--scan 22: {tmp_path / 'data'}/val has 0 to 21" in errors


def test_without_a_checkpoint(run):
    (run / "model" / "model_last.pth").unlink()
    record = read_record(run)
    assert missing(record)["model/model_last.pth"].problem == "no checkpoint there"
    assert record.kind == "DOS pretraining" and record.checkpoint is None


def test_of_a_truncated_checkpoint_the_next_one_is_taken(run):
    last = run / "model" / "model_last.pth"
    shutil.copy(last, run / "model" / "epoch_1.pth")
    last.write_bytes(last.read_bytes()[:1000])
    record = read_record(run)
    assert "truncated" in missing(record)["model/model_last.pth"].problem
    assert record.checkpoint == run / "model" / "epoch_1.pth" and record.checkpoint_epoch == 1
    (run / "model" / "epoch_1.pth").unlink()
    assert read_record(run).checkpoint is None


def test_a_checkpoint_that_is_newer_than_the_log_is_named(run):
    path = run / "model" / "model_last.pth"
    torch.save(torch.load(path) | {"epoch": 9}, path)
    assert "9 in the checkpoint" in missing(read_record(run))["train.log"].problem


def test_without_event_files_losses_come_from_the_log(run):
    for file in run.glob("events*"):
        file.unlink()
    record = read_record(run)
    assert missing(record)["events.out.tfevents.*"].problem == "not there"
    np.testing.assert_array_equal(record.curves["train_batch/loss"].value, [3.0, 2.5])


def test_an_event_file_that_was_cut_off_goes_on_with_the_log(run):
    (file,) = run.glob("events*")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) - 70])  # within the last loss
    record = read_record(run)
    assert "cut off within a record" in missing(record)[file.name].problem
    np.testing.assert_array_equal(record.curves["train_batch/loss"].value, [3.5, 3, 2.75, 2.5])
    file.write_bytes(b"\x01" + content[1:])
    assert file.name in missing(read_record(run))


def test_monitors_of_the_log_count_where_there_are_no_others(run):
    path = run / "train.log"
    lines = [train(1, 2, 1.0), "Monitor: feature std 0.50 (even 1), RankMe 7.0 of 12"]
    write(path, lines)
    assert read_record(run).curves["monitor/feat_std"].value.tolist() == [0.5]
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(run)) as writer:
        writer.add_scalar("monitor/feat_std", 0.25, 0)
    curves = read_record(run).curves
    assert curves["monitor/feat_std"].value.tolist() == [0.25]
    assert curves["monitor/rankme"].value.tolist() == [7.0]


@pytest.mark.parametrize(
    ("values", "collapsed"),
    [([0.7, 0.7, 0.1], False), ([0.7, 0.1, 0.1], True), ([0.1], True), ([0.7, float("nan")], True)],
)
def test_one_odd_batch_at_the_end_is_no_collapse(run, capsys, tmp_path, values, collapsed):
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(run), filename_suffix=".monitor") as writer:
        for step, value in enumerate(values):
            writer.add_scalar("monitor/feat_std", value, step)
    _, _, content, _ = report(run, capsys, "--data", str(tmp_path / "none"))
    assert (content["verdict"]["level"] == "collapsed") == collapsed


def test_event_files_of_resumed_and_of_new_runs(run):
    from tensorboardX import SummaryWriter

    (first,) = run.glob("events*")
    first.unlink()
    parts = (  # second of its name, tag, first step, values
        (100, "train_batch/loss", 1, [9.0, 8.0, 7.0]),
        (200, "probe/linear_mIoU", 0, [30.0]),
        (200, "train_batch/loss", 3, [6.0, 5.0]),  # resumed
        (300, "monitor/rankme", 0, [4.0]),
        (300, "train_batch/loss", 1, [2.0, 1.0]),  # anew, without a probe
    )

    def curves(*seconds):
        for file in run.glob("events*"):
            file.unlink()
        for age, second in enumerate(reversed(seconds)):  # copied in another order
            with SummaryWriter(str(run), filename_suffix=".new") as writer:
                for of, tag, start, values in parts:
                    for step, value in enumerate(values, start):
                        if of == second:
                            writer.add_scalar(tag, value, step)
            (written,) = run.glob("*.new")
            name = written.rename(run / f"events.out.tfevents.{second}.here")
            os.utime(name, (1000 + age, 1000 + age))
        return {tag: curve.value.tolist() for tag, curve in read_events(run)[0].items()}

    resumed = curves(100, 200)
    assert resumed == {"train_batch/loss": [9, 8, 6, 5], "probe/linear_mIoU": [30]}
    assert curves(100, 200, 300) == {"train_batch/loss": [2, 1], "monitor/rankme": [4]}


def test_without_tensorboardx_losses_come_from_the_log(run, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tensorboardX")]:
        monkeypatch.setitem(sys.modules, name, None)
    record = read_record(run)
    assert "tensorboardX" in missing(record)["events.out.tfevents.*"].problem
    assert "pip install tensorboardX" in missing(record)["events.out.tfevents.*"].remedy
    np.testing.assert_array_equal(record.curves["train_batch/loss"].value, [3.0, 2.5])


def test_without_matplotlib_the_page_has_no_charts(run, capsys, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "dos_plugin.drawing.charts", raising=False)
    monkeypatch.setattr("dos_plugin.drawing.charts", None, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, page, _, errors = report(run, capsys, "--data", str(tmp_path / "none"))
    assert status == 0
    assert "Loss over training batches" not in page and "Config of the run" in page
    (line,) = [line for line in errors.splitlines() if "pip install matplotlib" in line]
    assert line.startswith("missing: charts: ")


def test_history_of_the_probe_whole_and_broken(run):
    from dos_plugin.reports.figures import probe_curves

    entries = [{"epoch": e, "linear": {"miou": 20.0 + e}, "knn": {"miou": 9.0}} for e in (0, 5)]
    (run / "probe.json").write_text(json.dumps(entries))
    began = (run / "config.py").stat().st_mtime
    os.utime(run / "probe.json", (began - 1, began - 1))
    assert probe_curves(read_record(run)) == {}  # of an earlier run, this one has no such hook
    os.utime(run / "probe.json", (began + 1, began + 1))  # resumed with the hook
    assert len(probe_curves(read_record(run))) == 2
    with (run / "config.py").open("a") as file:
        file.write("\nhooks.append(dict(type='OnlineProbe'))\n")
    os.utime(run / "probe.json", (began - 1, began - 1))
    assert probe_curves(read_record(run))["probe/linear_mIoU"].value.tolist() == [20, 25]
    for text in ('[{"epoch": 0', '{"epoch": 0}', "[3]"):
        (run / "probe.json").write_text(text)
        record = read_record(run)
        assert "probe.json" in missing(record) and probe_curves(record) == {}


def test_a_folder_with_nothing_of_a_run_is_an_error(tmp_path, capsys):
    assert report(tmp_path / "none", capsys)[0] == 2
    (tmp_path / "empty").mkdir()
    status, _, _, errors = report(tmp_path / "empty", capsys)
    assert status == 2 and "nothing of a run there, expected config.py" in errors
    (tmp_path / "all" / "one").mkdir(parents=True)
    (tmp_path / "all" / "one" / "config.py").touch()
    status, _, _, errors = report(tmp_path / "all", capsys)
    assert status == 2 and f"runs lie in {tmp_path / 'all' / 'one'}" in errors


def test_a_segmentation_run_by_its_log_alone(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    lines = ["Config:\nmodel = dict(type='DefaultSegmentorV2')\nseed = 4"]
    for epoch, score in ((1, 0.2), (2, 0.45), (3, 0.4)):
        lines += [
            train(epoch, 2, 1.0),
            f"Train result: loss: {epoch} ",
            f"Val result: mIoU/mAcc/allAcc {score}/0.5/0.7.",
            f"Class_0-road Result: iou/accuracy {score}/0.7",
            f"Class_1-a < b Result: iou/accuracy {score / 2}/0.7",
        ]
    lines.insert(3, ("WARNING", "a <b> to look at"))
    write(folder / "train.log", lines)
    status, page, content, _ = report(folder, capsys)
    assert status == 0
    assert content["kind"] == "segmentation run" and content["state"] == "finished"
    assert content["seed"] == 4
    assert content["verdict"]["level"] == "learning"
    assert "45.0" in content["verdict"]["reasons"][0]
    assert "Validation scores over epochs" in page and "a &lt; b" in page
    assert "a &lt;b&gt; to look at" in page
    assert re_between(page, "<td>road</td>", "</tr>").count("40.0") == 2


def re_between(text, start, end):
    return text[text.index(start) : text.index(end, text.index(start))]


def test_a_pretraining_of_the_host_by_its_log_and_config(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.py").write_text("model = dict(type='Sonata-v1m1')\neval_epoch = 3\n")
    lines = [train(1, 2, 5.0, more="mask_loss: 4.0 "), train(2, 1, 4.0, more="mask_loss: 3.0 ")]
    write(folder / "train.log", lines, "pointcept")
    status, page, content, _ = report(folder, capsys)
    assert status == 0
    assert "Report of a run of Sonata-v1m1" in page and "<b>running</b>, epoch 2 of 3" in page
    assert content["verdict"]["level"] == "early"
    assert content["epochs_done"] == 1 and content["epochs"] == 3
