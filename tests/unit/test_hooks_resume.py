"""ExactResume: the checkpoint that a run goes on from is not lost before the next one is there."""

import logging
import subprocess
import sys
from types import SimpleNamespace

import torch
from torch.utils.data import DataLoader

from dos_plugin.hooks.resume import LAST, PREVIOUS, ExactResume


def test_a_damaged_checkpoint_does_not_replace_the_one_before(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    torch.save(dict(epoch=1, state_dict={}), folder / PREVIOUS)
    good = (folder / PREVIOUS).read_bytes()
    (folder / LAST).write_bytes(good[:100])
    hook = ExactResume(signals=())
    cfg = dict(resume=True, weight=str(folder / LAST), save_path=tmp_path, seed=0, batch_size=2)
    hook.trainer = SimpleNamespace(
        hooks=[hook],
        cfg=SimpleNamespace(**cfg),
        train_loader=DataLoader([0, 1, 2, 3], batch_size=2, shuffle=True),
        logger=logging.getLogger("a training"),
        epoch=1,
        start_epoch=1,
        max_epoch=3,
    )
    hook.before_train()
    hook.before_epoch()
    hook.after_epoch()  # the host's saver comes next, and may be killed
    assert hook.trainer.cfg.weight == str(folder / PREVIOUS)
    assert (folder / PREVIOUS).read_bytes() == good


READER = """
import os, signal, subprocess, sys
from functools import partial
import torch
from dos_plugin.hooks.resume import _outlive

signals = [signal.SIGTERM, signal.SIGUSR1]
loader = torch.utils.data.DataLoader(
    range(8), num_workers=1, persistent_workers=True,
    worker_init_fn=partial(_outlive, signals=signals, init=None),
)
batches = iter(loader)
next(batches)
(worker,) = batches._workers
for number in signals:  # from another process, as a batch system's
    subprocess.run([sys.executable, "-c", f"import os; os.kill({worker.pid}, {number:d})"])
assert len(list(batches)) == 7 and worker.is_alive()
sys.modules["kept"] = batches  # to the very end, when torch does not tell workers any more
"""


def test_workers_outlive_signals_of_others_and_end_with_their_reader():
    done = subprocess.run(
        [sys.executable, "-c", READER], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
