"""dos-plugin ablate as it is typed: two rows, trained and probed, then asked for again."""

import json

import pytest

pytest.importorskip("spconv")
pytest.importorskip("torch_pointcloud")

from dos_plugin import cli
from tests.tiny_run import write_config, write_scans


def test_trains_probes_and_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DOS_HOST", "minihost")
    for split in ("train", "val"):
        write_scans(tmp_path / "data", split, 2)
    write_config(tmp_path / "rows", tmp_path / "data").rename(tmp_path / "rows" / "_base_.py")
    for name, option in (("a", 'target="regression"'), ("b", "num_prototypes=12")):
        text = f'"""Row {name}."""\n_base_ = ["_base_.py"]\nmodel = dict({option})\n'
        (tmp_path / "rows" / f"{name}.py").write_text(text)
    out = tmp_path / "out"
    words = ["ablate", str(tmp_path / "rows"), "--out", str(out), "--seeds", "5", "--jobs", "2"]
    words += ["--options", "optimizer.lr=0.001", "scheduler.max_lr=0.001"]
    words += ["--probe", "--steps", "20", "--seeds", "1"]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "2 rows, 2 runs, 0 of them done" in printed and "[2/2]" in printed

    table = json.loads((out / "ablation.json").read_text())
    assert [line["name"] for line in table] == ["random weights", "a", "b"]
    assert all(line["seeds"] == [5] and 0 < line["miou"] < 100 for line in table)
    for name in "ab":
        config = (out / name / "seed-5" / "config.py").read_text()
        assert "seed = 5" in config and "lr=0.001" in config
    assert table[1]["seconds"] > 0

    # A run whose probe is gone is probed again and not trained again.
    checkpoint = out / "b" / "seed-5" / "model" / "model_last.pth"
    before = checkpoint.stat().st_mtime_ns
    (out / "b" / "seed-5" / "result.json").unlink()
    assert cli.main(words) == 0
    assert "2 rows, 2 runs, 1 of them done" in capsys.readouterr().out
    assert checkpoint.stat().st_mtime_ns == before
    assert json.loads((out / "ablation.json").read_text()) == table

    assert cli.main([*words[:6], "--seeds", "5", "--options", "epoch=2"]) == 2
    assert "holds a run with other settings" in capsys.readouterr().err
