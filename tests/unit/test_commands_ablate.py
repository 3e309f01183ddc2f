"""Rows, runs and tables of the ablation, without training anything."""

import argparse
import json
import statistics
from pathlib import Path

import pytest

pytest.importorskip("mmengine")

from dos_plugin.commands import ablate
from dos_plugin.reports import ablation
from tests.tiny_run import write_config, write_scans


@pytest.fixture
def folder(tmp_path):
    """A base and three rows, two of which say the same."""
    write_config(tmp_path / "rows", tmp_path / "data")
    (tmp_path / "rows" / "config.py").rename(tmp_path / "rows" / "_base_.py")
    for name, alpha in (("alpha-0", 0.0), ("alpha-1p3", 1.3), ("component-zipf", 1.3)):
        text = f'"""Alpha is {alpha}."""\n_base_ = ["_base_.py"]\nmodel = dict(sinkhorn=dict('
        (tmp_path / "rows" / f"{name}.py").write_text(f"{text}alpha={alpha}))\n")
    return tmp_path / "rows"


def arguments(out, *words):
    parser = argparse.ArgumentParser()
    ablate.add_arguments(parser)
    return parser.parse_args(["--out", str(out), *words])


def finish(job, miou, iou=None, random=None):
    """Leave what a finished run leaves."""
    job.folder.mkdir(parents=True)
    entry = dict(miou=miou, iou=iou or {"a": miou})
    probe = {"student": entry} | (
        {"random": dict(miou=random, iou={"a": random})} if random else {}
    )
    job.result.write_text(json.dumps(dict(probe=probe)))
    state = dict(digest=job.digest, trained=True, seconds=10.0)
    (job.folder / ablate.STATE).write_text(json.dumps(state))


class TestRows:
    def test_rows_that_say_the_same_are_trained_once(self, folder, tmp_path):
        rows = ablate.find_rows([folder])
        assert [row.name for row in rows] == ["alpha-0", "alpha-1p3", "component-zipf"]
        assert [row.summary for row in rows][1:] == ["Alpha is 1.3."] * 2
        assert [row.source.name for row in rows] == ["alpha-0", "alpha-1p3", "alpha-1p3"]
        jobs = ablate.plan(rows, arguments(tmp_path / "out", "--seeds", "4", "1"))
        assert [(job.row.name, job.seed) for job in jobs] == [
            ("alpha-0", 4),
            ("alpha-1p3", 4),
            ("alpha-0", 1),
            ("alpha-1p3", 1),
        ]
        assert [job.sources for job in jobs] == [("student", "random"), ("student",)] * 2
        assert len({job.digest for job in jobs}) == 4

    def test_missing_and_double(self, folder, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.py: no config there"):
            ablate.find_rows([tmp_path / "none.py"])
        (tmp_path / "empty").mkdir()
        with pytest.raises(FileNotFoundError, match="empty: no config there"):
            ablate.find_rows([tmp_path / "empty"])
        with pytest.raises(ValueError, match="a second config called 'alpha-0'"):
            ablate.find_rows([folder, folder / "alpha-0.py"])


class TestRuns:
    def test_a_run_with_other_settings_is_not_touched(self, folder, tmp_path):
        rows = ablate.find_rows([folder])
        (job, *_) = ablate.plan(rows, arguments(tmp_path / "out", "--seeds", "0"))
        finish(job, 30.0, random=20.0)
        assert ablate.is_done(job)
        ablate.plan(rows, arguments(tmp_path / "out", "--seeds", "0", "1"))
        for other in (
            ["--options", "epoch=3"],
            ["--data", "elsewhere"],
            ["--probe", "--steps", "9"],
        ):
            with pytest.raises(
                ValueError, match=r"alpha-0/seed-0: holds a run with other settings"
            ):
                ablate.plan(rows, arguments(tmp_path / "out", "--seeds", "0", *other))
        assert ablate.is_done(job)

    def test_training_goes_on_from_a_checkpoint(self, folder, tmp_path):
        rows = ablate.find_rows([folder / "alpha-0.py"])
        args = arguments(tmp_path / "out", "--seeds", "7", "--options", "epoch=3", "--data", "d")
        (job,) = ablate.plan(rows, args)
        words = job.train_command(["python", "tools/train.py"])
        assert words[:2] == ["python", "tools/train.py"] and "resume=True" not in words
        assert {f"save_path={job.folder}", "seed=7", "epoch=3", "data.train.data_root=d"} <= {
            *words
        }
        checkpoint = job.folder / "model" / "model_last.pth"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.touch()
        words = job.train_command(["python", "tools/train.py"])
        assert words[-2:] == ["resume=True", f"weight={checkpoint}"]
        assert job.probe_command()[-4:] == ["--data", "d", "--json", str(job.result)]
        args.probe = ["--data", "labelled"]
        (job,) = ablate.plan(rows, args)
        words = job.probe_command()
        assert words[words.index("--data") + 1] == "labelled" and words.count("--data") == 1

    def test_what_fails_is_named_with_its_log(self, folder, tmp_path, capsys):
        (tmp_path / "fail.py").write_text("raise SystemExit('no luck today')")
        write_scans(tmp_path / "data", "train", 1)
        words = [str(folder / "alpha-0.py"), "--seeds", "0", "--train", "python fail.py"]
        args = arguments(tmp_path / "out", *words)
        args.train = f"python3 {tmp_path / 'fail.py'}"
        assert ablate.main(args) == 1
        log = tmp_path / "out" / "alpha-0" / "seed-0" / "train.out"
        assert f"failed: alpha-0, seed 0, see {log}" in capsys.readouterr().err
        assert "no luck today" in log.read_text()
        state = json.loads((log.parent / ablate.STATE).read_text())
        assert state["trained"] is False and state["seconds"] > 0


def test_thirds_of_the_classes_by_frequency(folder, tmp_path):
    """Ground, boxes and poles have 1500, 400 and 200 points in each scan."""
    write_scans(tmp_path / "data", "train", 2)
    (tmp_path / "data" / "scenes.json").write_text(json.dumps(dict(class_names=["g", "b", "p"])))
    rows = ablate.find_rows([folder / "alpha-0.py"])
    write_scans(tmp_path / "bare", "train", 1, labels=False)
    words = ["--seeds", "0", "--probe", "--data", str(tmp_path / "data"), "--train-scans", "1"]
    for pretrained, more in (("data", words[:2]), ("bare", words)):
        (job,) = ablate.plan(rows, arguments(tmp_path / f"out-{pretrained}", *more))
        finish(job, 30.0)
        write_config(job.folder, tmp_path / pretrained)
        assert ablate.head_common_tail(job) == {"g": "head", "b": "common", "p": "tail"}


def test_table(folder, tmp_path, capsys):
    rows = ablate.find_rows([folder])
    jobs = ablate.plan(rows, arguments(tmp_path / "out", "--seeds", "0", "1"))
    iou = [{"g": 90.0, "b": 50.0, "p": 10.0}, {"g": 80.0, "b": 40.0, "p": None}]
    by_name = {(job.row.name, job.seed): job for job in jobs}
    finish(by_name["alpha-0", 0], 50.0, iou[0], random=20.0)
    finish(by_name["alpha-0", 1], 40.0, iou[1], random=22.0)
    finish(by_name["alpha-1p3", 0], 60.0, iou[0])
    thirds = {"g": "head", "b": "common", "p": "tail", "a": "head"}
    done = [job for job in jobs if ablate.is_done(job)]
    assert len(done) == 3
    table = ablate.summarise(rows, done, thirds)
    lines = {line.name: line for line in table}
    assert list(lines) == ["random weights", "alpha-0", "alpha-1p3", "component-zipf"]
    assert lines["random weights"].miou == [20.0, 22.0]
    zero = lines["alpha-0"]
    assert zero.miou.mean == 45.0 and zero.miou.std == statistics.stdev([50.0, 40.0])
    assert [part.mean for part in zero.thirds.values()] == [85.0, 45.0, 10.0]
    assert zero.seconds == 20.0 and zero.seeds == [0, 1]
    for name in ("alpha-1p3", "component-zipf"):
        assert lines[name].miou == [60.0] and lines[name].miou.std == 0.0

    ablation.write_results(table, tmp_path / "out")
    text = (tmp_path / "out" / "ablation.md").read_text()
    assert "| alpha-0 | 45.0 ± 7.1 | 50.0, 40.0 | 85.0 | 45.0 | 10.0 | 20 |" in text
    assert "- alpha-0: Alpha is 0.0." in text
    assert json.loads((tmp_path / "out" / "ablation.json").read_text()) == [
        line.plain() for line in table
    ]
    figure = tmp_path / "out" / "ablation.png"
    assert figure.read_bytes().startswith(b"\x89PNG") and figure.stat().st_size > 5000


def test_a_table_without_random_weights_and_a_damaged_result(folder, tmp_path):
    """The row whose runs are probed with random weights may have failed."""
    rows = ablate.find_rows([folder])
    jobs = ablate.plan(rows, arguments(tmp_path / "out", "--seeds", "0"))
    finish(jobs[1], 60.0)
    finish(jobs[0], 50.0)  # no random weights: trained when another row came first
    assert [ablate.is_done(job) for job in jobs] == [False, True]
    table = ablate.summarise(rows, jobs[1:], {})
    assert [line.name for line in table] == ["alpha-1p3", "component-zipf"]
    ablation.write_results(table, tmp_path / "out")
    assert (tmp_path / "out" / "ablation.png").is_file()
    jobs[1].result.write_text('{"probe": {"student"')
    assert not ablate.is_done(jobs[1])


def test_shipped_rows():
    """Components in the paper's order, then alpha; two alphas are components, too."""
    rows = ablate.find_rows([ablate.configs_dir() / "ablation"])
    assert len(rows) == 13 and len({row.source for row in rows}) == 11
    assert all(row.summary for row in rows)
    assert all(isinstance(row.path, Path) for row in rows)
