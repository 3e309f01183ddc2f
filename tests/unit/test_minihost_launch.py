"""Several processes that train together: where they meet, and what the end of one means."""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("mmengine")

import torch
import torch.distributed as dist
from mmengine.config import Config

from dos_plugin.minihost import launch as launching
from dos_plugin.minihost.launch import launch, wait_for_ranks
from tests.ranks import run_group

SECONDS = 60  # after which a test kills all processes
FORK = multiprocessing.get_context("fork")
READY = FORK.Semaphore(0)  # released by every process that has set what it does with signals


def sleep_on() -> None:
    READY.release()
    time.sleep(10 * SECONDS)


def never_end() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep_on()


def leave_with(status: int) -> None:
    READY.release()
    os._exit(status)


def die_by(number: int) -> None:
    READY.release()
    os.kill(os.getpid(), number)


def save_on_sigterm() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
    sleep_on()


@pytest.fixture
def start():
    """Starts processes of (function, *arguments); none of them outlives the test."""
    started = []

    def start(*ranks):
        processes = [FORK.Process(target=rank[0], args=rank[1:]) for rank in ranks]
        started.extend(processes)
        for process in processes:
            process.start()
        for _ in processes:
            assert READY.acquire(timeout=SECONDS)
        return processes

    def give_up() -> None:
        for process in started:
            process.kill()

    watchdog = threading.Timer(SECONDS, give_up)
    watchdog.start()
    yield start
    watchdog.cancel()
    give_up()


ENDINGS = {
    "all well": ([(leave_with, 0), (leave_with, 0)], None, [0, 0]),
    "status of its own": ([(sleep_on,), (leave_with, 75)], 1, [-signal.SIGTERM, 75]),
    "killed": ([(sleep_on,), (sleep_on,), (die_by, signal.SIGKILL)], 2, [-15, -15, -9]),
    "others do not listen": ([(leave_with, 3), (never_end,)], 0, [3, -signal.SIGKILL]),
    "one well, one not": ([(leave_with, 0), (leave_with, 4)], 1, [0, 4]),
}


@pytest.mark.parametrize("ranks, failed, codes", ENDINGS.values(), ids=ENDINGS)
def test_the_first_that_fails_ends_the_others(monkeypatch, start, ranks, failed, codes):
    monkeypatch.setattr(launching, "PATIENCE", 0.5)
    processes = start(*ranks)
    assert wait_for_ranks(processes) == failed
    assert [process.exitcode for process in processes] == codes


def test_of_several_that_failed_the_cause_is_named(start):
    """A rank that lost the others fails with status 1 at once: by the time of a look all are."""
    for cause in ((die_by, signal.SIGKILL), (leave_with, 75)):
        processes = start((leave_with, 1), cause, (leave_with, 1))
        for process in processes:
            process.join(SECONDS)
        assert wait_for_ranks(processes) == 1


def test_sigterm_goes_on_to_the_ranks(start):
    processes = start((save_on_sigterm,), (save_on_sigterm,))
    before = signal.getsignal(signal.SIGTERM)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert wait_for_ranks(processes) in (0, 1)
    assert [process.exitcode for process in processes] == [75, 75]
    assert signal.getsignal(signal.SIGTERM) == before


def test_ctrl_c_ends_all_ranks(monkeypatch, start):
    monkeypatch.setattr(launching, "PATIENCE", 0.5)
    processes = start((sleep_on,), (never_end,))
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(SystemExit) as stopped:
        wait_for_ranks(processes)
    assert stopped.value.code == 130
    assert not any(process.is_alive() for process in processes)


def test_the_port_is_taken_before_any_rank_starts(monkeypatch):
    """Else two trainings that start together may choose the same one."""
    ports = []

    def start_processes(worker, arguments, *_, **__):
        ports.append(arguments[1])
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((launching.LOOPBACK, arguments[1]))
        other_store = dist.TCPStore(launching.LOOPBACK, arguments[1], is_master=False)
        other_store.set("here", "yes")
        return type("Context", (), dict(processes=[]))

    monkeypatch.setattr(launching.mp, "start_processes", start_processes)
    launch(Config(), num_gpus=2)
    assert len(ports) == 1


def killed_in_a_collective(cfg: Config, text: str) -> None:
    value = torch.ones(1)
    dist.all_reduce(value)
    assert value.item() == 2
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as if within a collective of a GPU
    time.sleep(10 * SECONDS)


def mistaken(cfg: Config, text: str) -> None:
    if dist.get_rank() == 1:
        raise ValueError(f"seed: {cfg.seed}, expected another")
    dist.all_reduce(torch.ones(1))


@pytest.mark.parametrize(
    "run, status, said",
    [
        ("killed_in_a_collective", 137, "rank 1 was ended by SIGKILL (is there enough memory?)"),
        ("mistaken", 1, "ValueError: rank 1: seed: 3, expected another"),
    ],
)
def test_real_ranks(run, status, said):
    root = Path(__file__).parents[2]
    program = (
        "from mmengine.config import Config\n"
        "from dos_plugin.minihost import launch\n"
        f"from tests.unit.test_minihost_launch import {run}\n"
        "if __name__ == '__main__':\n"
        "    launch.PATIENCE = 1.0\n"
        f"    launch.launch(Config(dict(seed=3)), 2, {run})\n"
    )
    env = dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS="1")
    env.pop("DOS_TRACEBACK", None)
    done = run_group([sys.executable, "-c", program], SECONDS, cwd=root, env=env)
    assert done.returncode == status, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(said), done.stderr
