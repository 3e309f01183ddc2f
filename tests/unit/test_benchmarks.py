"""The benchmarks run as typed, at tiny sizes, and write the documented keys."""

import functools
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import common  # noqa: E402

MB = 2**20


class TestCommon:
    def test_sides_alternate_after_the_warmup(self):
        calls: list[str] = []
        sides = {name: functools.partial(calls.append, name) for name in "ab"}
        times = common.alternate(sides, repeats=3, warmup=1)
        assert "".join(calls) == "abbaabba"
        assert {name: len(taken) for name, taken in times.items()} == {"a": 3, "b": 3}
        assert all(second >= 0 for taken in times.values() for second in taken)

    @pytest.mark.parametrize("sampled", [False, True])
    def test_extra_memory_is_the_peak_without_the_inputs(self, sampled):
        # 40 MiB of inputs; the work holds 30 MiB, then 60 MiB, and returns with nothing.
        work = functools.partial(sampled_work if sampled else peak_work, 30 * MB)
        prepare = functools.partial(inputs, 40 * MB)
        extra = common.extra_peak_memory(work, prepare)
        assert 58 * MB < extra < 66 * MB

    def test_table_and_json(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / "x.py"), "--seed", "1"])
        rows = [{"side": "ours", "s": 0.123456, "n": 10}, {"side": "other", "s": None, "n": 9}]
        common.print_table(rows)
        assert capsys.readouterr().out == (
            "side        s   n\nours   0.1235  10\nother       -   9\n"
        )
        common.write_json(None, rows, {})
        common.write_json(tmp_path / "new" / "x.json", rows, {"ratio": 2.0})
        report = json.loads((tmp_path / "new" / "x.json").read_text())
        assert set(report) == {"machine", "command", "rows", "summary"}
        assert report["rows"] == rows and report["summary"] == {"ratio": 2.0}
        assert report["command"] == "python benchmarks/x.py --seed 1"
        assert report["machine"]["numpy"] == np.__version__
        assert report["machine"]["cores"] >= 1


def inputs(size: int) -> tuple[np.ndarray]:
    return (np.ones(size, dtype=np.uint8),)


def peak_work(size: int, array: np.ndarray) -> None:
    first = np.ones(size, dtype=np.uint8)
    second = np.ones(size, dtype=np.uint8)
    assert len(array) and len(first) == len(second)


def sampled_work(size: int, array: np.ndarray) -> None:
    """Measures itself by sampling: what the parent sees is the same peak."""
    assert 28 * MB < common._sampled_peak(slow_work, (size,)) < 36 * MB
    peak_work(size, array)


def slow_work(size: int) -> None:
    array = np.ones(size, dtype=np.uint8)
    time.sleep(0.1)
    assert len(array)
