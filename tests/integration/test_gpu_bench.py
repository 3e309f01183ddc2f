"""The command that proves the library on a GPU, in small on a CPU, and its table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks/gpu"))

import run as gpu_run  # noqa: E402
import table  # noqa: E402

# `run.sh --dry` without --only does the others as well; each of them is a command that other tests
# run: pretraining, resuming and probing on the host, the ablation, the step beside Sonata.
STEPS = ["imports", "method", "networks", "loss", "memory", "profile"]


def run_sh(out: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict]:
    command = ["sh", "benchmarks/gpu/run.sh", "--dry", "--out", str(out), *options]
    env = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1500)
    return done, json.loads((out / "result.json").read_text())


def test_dry_run(tmp_path):
    done, result = run_sh(tmp_path, "--only", ",".join(STEPS))
    log = (tmp_path / "log.txt").read_text()
    assert done.returncode == 0, log[-4000:]
    assert list(result["steps"]) == STEPS and result["dry"]
    steps = result["steps"]
    assert {entry["status"] for entry in steps.values()} == {"ok"}
    figures = steps["method"]["summary"]["figures"]
    assert figures["triton, N=300, K=64"] < 1e-5 and figures["loss float32"] < 1e-5
    assert steps["networks"]["summary"]["failures"] == []
    assert steps["networks"]["summary"]["figures"]["PT-v3m2: bit by bit the same"]
    assert {"dense_s", "ours_s", "plain_s", "plain_error"} <= set(steps["loss"]["rows"][0])
    configs = steps["memory"]["rows"]
    assert len(configs) > 1 and all(row["points_per_s"] > 0 for row in configs)
    assert all(0.1 < row["visible"] / row["points"] < 0.6 for row in configs)
    assert len(steps["profile"]["rows"]) == 10
    assert result["machine"]["gpu"] is None


def make_run(tmp_path, monkeypatch, *steps, seconds=60.0):
    monkeypatch.setattr(gpu_run, "find_pointcept", lambda: None)
    run = gpu_run.Run(tmp_path, True, seconds)
    for step in steps:
        run.do(step)
    return json.loads((tmp_path / "result.json").read_text())["steps"]


def step(name, code, limit=30.0, **more):
    return gpu_run.Step(name, [], ["-c", code], limit, **more)


WRITES = (
    "import json, sys; json.dump({'machine': {}, 'rows': [], 'summary': {'x': 1}}, "
    "open(sys.argv[-1], 'w')); "
)


def test_a_run_goes_on_where_a_step_fails(tmp_path, monkeypatch):
    monkeypatch.delenv("REAL_SCENES", raising=False)
    found = make_run(
        tmp_path,
        monkeypatch,
        step("imports", WRITES + "sys.exit('no spconv here')"),
        step("sparse", WRITES, needs=("spconv",)),
        step("host", WRITES, needs=("host",)),
        step("real", WRITES, needs=("real",)),
        step("last", WRITES),
        step("not needed", WRITES, instead_of="last"),
        step("in its place", WRITES, instead_of="imports"),
    )
    assert found["imports"]["status"] == "failed"
    assert "no spconv here" in found["imports"]["output"]
    assert found["imports"]["summary"] == {"x": 1}  # what it had written stays
    reasons = {name: entry.get("reason") for name, entry in found.items()}
    assert reasons["sparse"] == "spconv does not run here, see imports"
    assert reasons["host"] == "no Pointcept checkout"
    assert reasons["real"] == "no real scans were carried"
    assert reasons["not needed"] == "only where last fails"
    assert found["last"]["status"] == found["in its place"]["status"] == "ok"


def test_what_takes_too_long_is_ended_with_its_children(tmp_path, monkeypatch):
    code = (
        "import subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        "print(child.pid, flush=True); time.sleep(600)"
    )
    monkeypatch.setattr(gpu_run, "LEAST", 1.0)
    found = make_run(tmp_path, monkeypatch, step("slow", code), step("late", WRITES), seconds=9.0)
    assert found["slow"]["status"] == "timeout"
    child = int(found["slow"]["output"].split()[0])
    stat = Path(f"/proc/{child}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"
    assert found["late"] == {"status": "skipped", "reason": "no time is left"}


def test_steps_name_scripts_that_are_there():
    steps = gpu_run.steps()
    assert len({s.name for s in steps}) == len(steps)
    for one in steps:
        for command in (one.command, one.dry):
            assert (ROOT / command[0]).is_file()
    assert all("--dry" not in one.command for one in steps)


RESULT = {
    "dry": False,
    "machine": {"gpu": "GPU X", "torch": "2.0", "python": "3.12", "commit": "abc"},
    "steps": {
        "imports": {
            "status": "failed",
            "seconds": 1.5,
            "summary": {"figures": {}, "failures": ["spconv: absent"]},
        },
        "method": {
            "status": "ok",
            "seconds": 20.0,
            "summary": {"figures": {"loss TF32": 0.00041, "it holds": True}, "failures": []},
        },
        "networks": {"status": "skipped", "reason": "spconv does not run here, see imports"},
        "loss": {
            "status": "ok",
            "seconds": 9.0,
            "command": "python benchmarks/loss.py",
            "rows": [{"n": 160000, "k": 1024, "dense_s": 0.03, "triton_s": 0.01,
                      "triton_mb": 300.0, "triton_error": 0.0004}],
            "summary": {},
        },
        "memory": {
            "status": "timeout",
            "seconds": 60.0,
            "rows": [{"config": "pretrain-x", "scenes": 12, "points": 500000, "visible": 150000,
                      "peak_gb": 31.25, "estimate_gb": 27.0, "step_s": 0.5,
                      "points_per_s": 1000000.0}],
            "summary": {"attention": "plain, patches of 128"},
        },
    },
}  # fmt: skip


def test_section_is_made_of_the_result(tmp_path, monkeypatch):
    docs, result = tmp_path / "performance.md", tmp_path / "result.json"
    docs.write_text(f"# Before\n\n{table.BEGIN}\nstale text\n{table.END}\n\nAfter.\n")
    result.write_text(json.dumps(RESULT))
    monkeypatch.setattr(sys, "argv", ["table.py", str(result), "--docs", str(docs)])
    table.main()
    text = docs.read_text()
    assert text.startswith("# Before\n") and text.endswith("\n\nAfter.\n") and "stale" not in text
    lines = text.splitlines()
    assert "Machine: GPU X, torch 2.0, Python 3.12, commit abc." in text
    assert "| networks | skipped | - | spconv does not run here, see imports |" in lines
    assert "| loss TF32 | 0.00041 |" in lines and "| it holds | yes |" in lines
    assert "- imports: spconv: absent" in lines
    assert "| 160,000 | 1,024 | triton | 10 | 300 | 0.0004 | 3 |" in lines
    row = "| pretrain-x | 12 | 500,000 | 150,000 | 31.2 | 27 | 0.5 | 1,000,000 | - |"
    assert row in lines
    table.main()
    assert docs.read_text() == text


def test_without_a_result_the_section_says_so(tmp_path, monkeypatch, capsys):
    result = tmp_path / "result.json"
    result.write_text(json.dumps({**RESULT, "dry": True}))
    docs = tmp_path / "performance.md"
    docs.write_text(table.DOCS.read_text())
    monkeypatch.setattr(sys, "argv", ["table.py", str(result), "--docs", str(docs)])
    with pytest.raises(SystemExit):
        table.main()
    assert "dry run" in capsys.readouterr().err
    assert docs.read_text() == table.DOCS.read_text()
    monkeypatch.setattr(sys, "argv", ["table.py", "--docs", str(docs)])
    table.main()
    assert table.NOTHING in docs.read_text()
