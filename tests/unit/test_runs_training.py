"""Command lines and notes of trainings."""

import json
from pathlib import Path

import pytest

from dos_plugin.runs.training import digest, environment, read_notes, train_command, write_notes


def test_a_training_goes_on_where_there_is_a_checkpoint(tmp_path):
    words = train_command(["train.py", "--num-gpus", "2"], Path("a.py"), tmp_path, ["seed=1"])
    assert words[:5] == ["train.py", "--num-gpus", "2", "--config-file", "a.py"]
    assert words[5:] == ["--options", f"save_path={tmp_path}", "seed=1"]
    checkpoint = tmp_path / "model" / "model_last.pth"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    again = train_command(["train.py"], Path("a.py"), tmp_path, ["seed=1"])
    assert again[-2:] == ["resume=True", f"weight={checkpoint}"]


def test_environment(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environment("zoo")["DOS_HOST"] == "zoo"
    assert environment("zoo")["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in environment("zoo", one_thread=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment("zoo")["OMP_NUM_THREADS"] == "3"


def test_notes(tmp_path):
    path = tmp_path / "new" / "notes.json"
    assert read_notes(path) == {}
    write_notes(path, {"a": [1, 2]})
    assert read_notes(path) == {"a": [1, 2]} == json.loads(path.read_text())
    path.write_text("{")
    with pytest.raises(ValueError, match=r"notes.json: is no JSON .*, remove it"):
        read_notes(path)


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": (2,)}) == digest({"b": [2], "a": 1}) != digest({"a": 1})
