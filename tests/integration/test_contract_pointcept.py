"""The contract tests once more, on the real host."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dos_plugin.cpu.checkout import find_pointcept

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    find_pointcept() is None,
    reason="no Pointcept checkout at POINTCEPT_ROOT or ~/.cache/dos-plugin/Pointcept",
)
@pytest.mark.parametrize(
    "tests, stand_ins",
    [
        (["tests/contract", "--ignore=tests/contract/test_more_backbones.py"], ""),
        # torch_geometric's own voxel_grid asks for pyg-lib
        (["tests/contract/test_more_backbones.py"], "torch_geometric"),
    ],
    ids=["all", "more backbones"],
)
def test_contract_on_pointcept(tmp_path, tests, stand_ins):
    runner = [] if torch.cuda.is_available() else ["-m", "dos_plugin.cpu"]
    pytest_options = ["-p", "no:cacheprovider", f"--basetemp={tmp_path / 'pytest'}"]
    done = subprocess.run(
        [sys.executable, *runner, "-m", "pytest", *tests, *pytest_options],
        cwd=ROOT,
        env={
            **os.environ,
            "DOS_HOST": "pointcept",
            "PYTHONPATH": str(find_pointcept()),
            "OMP_NUM_THREADS": "1",
            "DOS_STAND_INS": stand_ins,
        },
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "passed" in done.stdout
