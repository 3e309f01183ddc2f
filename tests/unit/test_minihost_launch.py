"""Several processes that train together: where they meet, and what the end of one means."""

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
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


def to_be_resumed(cfg: Config, text: str) -> None:
    if dist.get_rank() == 2:
        raise SystemExit(75)
    dist.all_reduce(torch.ones(1))


def adding(cfg: Config, text: str) -> None:
    value = torch.tensor(dist.get_rank())
    dist.all_reduce(value)
    (Path(cfg.folder) / str(dist.get_rank())).write_text(str(value.item()))


def waiting(cfg: Config, text: str) -> None:
    (Path(cfg.folder) / str(os.getpid())).touch()
    time.sleep(10 * SECONDS)


def mistaken(cfg: Config, text: str) -> None:
    if dist.get_rank() == 1:
        assert 1 / cfg.seed
        raise ValueError(f"seed: {cfg.seed}, expected another")
    dist.all_reduce(torch.ones(1))


@pytest.fixture
def forks(monkeypatch):
    """Ranks are forked off a server with the imports; none outlives the test.

    Not off this process: it has threads by now, whose locks a fork would keep for ever.
    """
    multiprocessing.set_forkserver_preload(["dos_plugin.register", "dos_plugin.minihost.launch"])
    start_ranks_by("forkserver", monkeypatch.setattr)

    def give_up() -> None:
        for process in multiprocessing.active_children():
            process.kill()

    monkeypatch.setattr(launching, "PATIENCE", 1.0)
    watchdog = threading.Timer(SECONDS, give_up)
    watchdog.start()
    yield
    watchdog.cancel()
    give_up()


def start_ranks_by(method: str, setattr=setattr) -> None:
    start = launching.mp.start_processes

    def start_processes(*args, **options):
        return start(*args, **options | dict(start_method=method))

    setattr(launching.mp, "start_processes", start_processes)


def test_a_rank_that_is_killed(forks, capfd):
    with pytest.raises(SystemExit) as stopped:
        launch(Config(), 2, killed_in_a_collective)
    assert stopped.value.code == 137
    assert capfd.readouterr().err.strip().splitlines()[-1] == (
        "rank 1 was ended by SIGKILL (is there enough memory?); the other ranks are stopped"
    )


def test_a_status_of_its_own_is_passed_on(forks, capfd):
    with pytest.raises(SystemExit) as stopped:
        launch(Config(), 4, to_be_resumed)
    assert stopped.value.code == 75
    assert "rank 2 ended with exit status 75; the other" in capfd.readouterr().err


def test_an_error_of_a_rank_is_one_line(forks, monkeypatch, capfd):
    monkeypatch.delenv("DOS_TRACEBACK", raising=False)
    with pytest.raises(ValueError, match="^rank 1: seed: 3, expected another$"):
        launch(Config(dict(seed=3)), 2, mistaken)
    assert "Traceback" not in capfd.readouterr().err
    with pytest.raises(ValueError, match="^rank 1: ZeroDivisionError: division by zero$"):
        launch(Config(dict(seed=0)), 2, mistaken)
    shown = capfd.readouterr().err  # no mistake of a user's: where it came from, of rank 1 only
    assert shown.count("Traceback (most recent call last)") == 1 and "1 / cfg.seed" in shown


def test_all_is_well(forks, tmp_path):
    launch(Config(dict(folder=str(tmp_path))), 4, adding)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys(
        "0123", "6"
    )


@pytest.mark.parametrize(("ranks", "told", "left"), [(2, None, 2), (8, None, 1), (2, "4", 4)])
def test_ranks_share_the_cores(monkeypatch, ranks, told, left):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        launching._share_cores(ranks)
        assert torch.get_num_threads() == left
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN], ids=["", "background"])
def test_ranks_do_not_outlive_their_parent(tmp_path, handler):
    root = Path(__file__).parents[2]
    program = (
        "from tests.unit.test_minihost_launch import Config, launch, start_ranks_by, waiting\n"
        f"start_ranks_by('fork')\nlaunch(Config(dict(folder={str(tmp_path)!r})), 2, waiting)\n"
    )
    env = dict(os.environ, PYTHONPATH=str(root))
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        env=env,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )
    end = time.monotonic() + SECONDS
    try:
        while len(list(tmp_path.iterdir())) < 2:
            assert parent.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        parent.kill()
        pids = [file.name for file in tmp_path.iterdir()]
        while running := [pid for pid in pids if is_running(pid)]:
            assert time.monotonic() < end, f"{running} still run"
            time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()


def is_running(pid: str) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
