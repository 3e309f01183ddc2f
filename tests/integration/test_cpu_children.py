"""One activation covers the process, its workers and its spawned children."""

import subprocess
import sys

import pytest
import torch


@pytest.mark.skipif(torch.cuda.is_available(), reason="nothing is filled in where CUDA is at hand")
def test_activation_holds_in_this_process_in_workers_and_in_spawned_children(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys, torch\n"
        "import pointops\n"
        "def answer(queue):\n"
        "    storage = torch.ones(2).untyped_storage()\n"
        "    parts = [pointops.knn_query.__module__, torch.ones(2).cuda().device.type]\n"
        "    layer = torch.nn.Linear(1, 1).cuda()\n"
        "    parts += [layer.weight.device.type, storage.cuda().device.type]\n"
        "    torch.cuda.synchronize(); torch.cuda.set_device(0); torch.cuda.empty_cache()\n"
        "    queue.put(parts + [torch.cuda.current_device()])\n"
        "if __name__ == '__main__':\n"
        "    for method in ('fork', 'spawn', 'forkserver'):\n"
        "        context = multiprocessing.get_context(method)\n"
        "        queue = context.SimpleQueue()\n"
        "        child = context.Process(target=answer, args=(queue,))\n"
        "        child.start(); child.join(); print(method, child.exitcode, queue.get())\n"
        "    print(sys.argv[1:], sys.path[0])\n"
    )
    command = [sys.executable, "-m", "dos_plugin.cpu", str(script), "--flag", "x"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    expected = "0 ['dos_plugin.cpu.pointops', 'cpu', 'cpu', 'cpu', 0]"
    assert done.stdout.splitlines() == [
        f"fork {expected}",
        f"spawn {expected}",
        f"forkserver {expected}",
        f"['--flag', 'x'] {tmp_path}",
    ], done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("dos-plugin cpu:")]
    assert sum("pointops" in line and "knn_query" in line for line in said) == 1
    assert len(said) == len(set(said)), "children do not repeat what was filled in"
