"""What a release hands out, sdist and wheel: built from the commit alone, and tried in fresh
environments, outside of this repository.

    python tests/smoke.py build dist    # needs the package `build`
    python tests/smoke.py try dist
    python tests/smoke.py try dist --python python3.10 --bare --with torch==2.4.0 numpy==1.24.4

``try`` makes an environment, installs the wheel with torch and numpy alone, then with the extra
``demo`` unless ``--bare``, then the sdist in its place, and each time runs ``checks`` there. What
is installed comes from where pip is set up to look.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def make_parser() -> argparse.ArgumentParser:
    """Parser of this script's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("build", help="sdist and wheel of HEAD").add_argument
    add("dist", type=Path, help="folder to write to")
    command = commands.add_parser("try", help="install both in a fresh environment, run checks")
    add = command.add_argument
    add("dist", type=Path, help="folder with one wheel and one sdist")
    add("--python", default=sys.executable, help="interpreter (default: this one)")
    add("--with", dest="versions", nargs="+", default=[], metavar="REQ", help="torch==2.4.0 …")
    add("--bare", action="store_true", help="with torch and numpy alone, without the extra demo")
    add("--folder", type=Path, help="for the environment, 1 to 6 GB (default: the system's)")
    command = commands.add_parser("checks", help="those of the environment that runs this")
    command.add_argument("--demo", action="store_true", help="those of the extra, too")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = make_parser().parse_args(argv)
    if args.command == "build":
        with tempfile.TemporaryDirectory() as folder:
            export(Path(folder))
            build(Path(folder), args.dist)
    elif args.command == "try":
        with tempfile.TemporaryDirectory(prefix="dos-", dir=args.folder) as folder:
            try_files(
                Path(folder).resolve(), args.dist.resolve(), args.python, args.versions, args.bare
            )
    else:
        checks(args.demo)


def export(folder: Path) -> None:
    """Put what the commit HEAD holds into a folder, and nothing that only lies about."""
    archive = folder / "HEAD.tar"
    subprocess.run(["git", "archive", "--output", archive, "HEAD"], cwd=ROOT, check=True)
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
    archive.unlink()


def build(source: Path, out: Path, *options: str) -> None:
    """sdist of a source tree, and the wheel of that sdist."""
    command = [sys.executable, "-m", "build", *options, "--outdir", str(out), str(source)]
    subprocess.run(command, check=True)


def try_files(
    folder: Path, dist: Path, python: str, versions: Sequence[str], bare: bool = False
) -> None:
    """Install the files of ``dist`` one after the other in an environment and check each.

    Both folders are absolute paths."""
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    subprocess.run([python, "-m", "venv", folder / "environment"], check=True)
    inside = folder / "environment/bin/python"
    pip = [inside, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DOS_HOST")}

    def check(file: Path, *options: str) -> None:
        started = time.perf_counter()
        extra = "[demo]" if options else ""
        subprocess.run([*pip, "install", f"{file}{extra}", *versions], check=True)
        command = [inside, Path(__file__).resolve(), "checks", *options]
        with tempfile.TemporaryDirectory(dir=folder) as empty:  # a demo goes on where one was
            subprocess.run(command, cwd=empty, env=variables, check=True)
        print(f"passed: {file.name}{extra}, {time.perf_counter() - started:.0f} s", flush=True)

    full = () if bare else ("--demo",)
    check(wheel)
    if full:
        check(wheel, *full)
    subprocess.run([*pip, "uninstall", "--yes", "dos-plugin"], check=True)
    check(sdist, *full)


# -- in the environment ----------------------------------------------------------------------


def checks(demo: bool) -> None:
    """Check the dos-plugin that is installed here; works in the current folder."""
    import numpy as np
    import torch

    import dos_plugin

    print(f"python {sys.version.split()[0]}, torch {torch.__version__}, numpy {np.__version__}")
    inside = Path(dos_plugin.__file__).parent
    assert Path(sys.prefix) in inside.parents, inside
    version = importlib.metadata.version("dos-plugin")
    assert program("--version").startswith(f"dos-plugin {version}\n")
    configs = program("configs")
    assert configs.count("-dos-v1m1-") >= 15, configs
    config = program("configs", "--path", "pretrain-dos-v1m1-9-demo").strip()
    assert inside in Path(config).parents, config
    doctor = json.loads(program("doctor", "--json"))
    assert doctor["versions"]["torch"] == importlib.metadata.version("torch"), doctor
    check_loss()
    if demo:
        check_embedded_host()
        check_demo()


def program(*words: str) -> str:
    """Output of ``dos-plugin``, as installed beside this interpreter."""
    command = [str(Path(sys.prefix) / "bin/dos-plugin"), *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def check_loss() -> None:
    """The method's loss, forward and backward."""
    import torch

    from dos_plugin.method import ZipfSinkhorn, softmap_loss

    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        rows = torch.nn.functional.normalize(torch.randn(3, 64, 16), dim=2).to(dtype)
        student, teacher, prototypes = rows.unbind()
        student.requires_grad_()
        prototypes.requires_grad_()
        sinkhorn = ZipfSinkhorn(alpha=1.3, num_iters=3)
        loss = softmap_loss(student, teacher, prototypes, prototypes.detach(), sinkhorn, 0.1, 0.05)
        loss.backward()
        assert loss.isfinite() and loss > 0, loss
        for gradient in (student.grad, prototypes.grad):
            assert gradient.isfinite().all() and gradient.abs().sum() > 0


def check_embedded_host() -> None:
    """DOS enters the embedded host, where nothing of Pointcept is."""
    import dos_plugin.register
    from dos_plugin.host import EMBEDDED, active_host

    assert active_host().name == EMBEDDED, active_host().name
    assert "DOS-v1m1" in dos_plugin.register.COMPONENTS["MODELS"]


def check_demo() -> None:
    """Streets, two training steps in two processes, probe and report."""
    small = ("--options", "epoch=1", "eval_epoch=1")
    program("demo", "--quick", "--workers", "1", *small)
    report = Path("exp/dos/demo-quick/report")
    content = json.loads((report / "report.json").read_text())
    assert content["training"]["steps"] == 2, content["training"]
    assert {"student", "teacher", "random", "raw"} <= set(content["probe"]), content["probe"]
    assert (report / "report.html").is_file() and (report / "view.html").is_file()


if __name__ == "__main__":
    main()
