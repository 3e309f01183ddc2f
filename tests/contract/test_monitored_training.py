"""PrototypeMonitor in a training by the host: it writes its numbers and changes nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dos_plugin.host import HOST
from dos_plugin.runs.scalars import read_events
from tests.tiny_run import write_scans

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs/dos/pretrain-dos-v1m1-9-demo.py"
TAGS = {
    "prior_kl", "effective_prototypes", "dead_prototypes", "duplicate_prototypes",
    "target_entropy", "feat_std", "feat_std_smallest", "rankme", "same_matched", "cross_matched",
    "visible",
}  # fmt: skip
CHANGES = """
model["backbone"].update(enc_channels=(8, 16, 24, 32), enc_num_head=(1, 2, 3, 4))
model["backbone"].update(enc_patch_size=(32,) * 4, mlp_ratio=1)
model.update(backbone_out_channels=80, num_prototypes=32)
model.update(head=dict(hidden_channels=16, out_channels=12))
transform[2]["max_size"] = 600
num_worker, batch_size, epoch, eval_epoch = 1, 2, 2, 2
gradient_accumulation_steps = 2
hooks = [hook for hook in hooks if hook["type"] != "PrototypeMonitor"]
"""


def train(config: Path) -> None:
    """Run the host's training command; fail with its output if it fails."""
    arguments = ["--config-file", str(config)]
    environment = dict(os.environ, DOS_HOST=HOST.name, OMP_NUM_THREADS="1")
    if HOST.name == "minihost":
        command, folder = [sys.executable, "-m", "dos_plugin.minihost"], ROOT
    else:
        folder = Path(sys.modules[HOST.name].__file__).parents[1]
        command = [sys.executable, "-m", "dos_plugin.cpu", "tools/train.py"]
        environment["PYTHONPATH"] = str(folder)
    done = subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A training with the hook and one without; 8 scenes are 4 batches and 2 steps an epoch."""
    folder = tmp_path_factory.mktemp("monitor")
    write_scans(folder / "data", "train", 8)
    found = {}
    for name, hook in (("with", 'hooks.append(dict(type="PrototypeMonitor"))'), ("without", "")):
        run = folder / name
        config = folder / f"{name}.py"
        paths = f"save_path = {str(run)!r}\ndata['train']['data_root'] = {str(folder / 'data')!r}\n"
        config.write_text(DEMO.read_text() + CHANGES + paths + hook + "\n")
        train(config)
        found[name] = run
    return found


def test_scalars_are_written(runs):
    curves = read_events(runs["with"])[0]
    written = {tag.removeprefix("monitor/") for tag in curves if tag.startswith("monitor/")}
    assert written == TAGS
    # The random features, then once an epoch, of 2 steps: at its last batch.
    assert list(curves["monitor/rankme"].step) == [0, 1, 3]
    assert all(0 < share <= 1 for share in curves["monitor/visible"].value)
    assert all(1 <= rank <= 12 for rank in curves["monitor/rankme"].value)
    assert not any(tag.startswith("monitor/") for tag in read_events(runs["without"])[0])


def test_a_line_an_epoch_and_no_warning(runs):
    log = (runs["with"] / "train.log").read_text()
    assert log.count("Monitor: feature std") == 2
    assert "seems to collapse" not in log
    assert "Monitor:" not in (runs["without"] / "train.log").read_text()


def test_the_training_is_bitwise_the_same(runs):
    first, second = (read_events(runs[name])[0]["train_batch/loss"] for name in ("with", "without"))
    assert len(first.value) == 8 and list(first.value) == list(second.value)
    states = [torch.load(runs[name] / "model/model_last.pth", weights_only=False) for name in runs]
    weights = [state["state_dict"] for state in states]
    assert weights[0].keys() == weights[1].keys() and len(weights[0]) > 50
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
