"""The wheel holds package, configs and template, and works in an environment of its own."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dos_plugin import __version__
from tests import smoke
from tests.tiny_run import write_run, write_scans

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / "setup.py").is_file() or importlib.util.find_spec("build") is None,
    reason="needs the source tree and the package `build` (extra dev)",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built by ``python -m build`` from a copy of what a clone holds, by way of an sdist."""
    source = tmp_path_factory.mktemp("source") / "dos-plugin"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("dos_plugin", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    smoke.build(source, out, "--no-isolation")
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A fresh virtual environment with the wheel, and torch and the rest of this one's packages.

    They are reached through a path file that names their folder alone: its own path files, such as
    the one of an editable install of this repository, are not read.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin/python"
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = Path(subprocess.check_output([python, "-c", ask], text=True).strip())
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    pip += ["--no-deps", "--no-index", "--ignore-installed", "--disable-pip-version-check"]
    done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run(environment: Path, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment outside the repository."""
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DOS_HOST")}
    variables["POINTCEPT_ROOT"] = str(cwd)
    program, *arguments = command
    return subprocess.run(
        [environment / "bin" / program, *arguments],
        env=variables,
        cwd=cwd,
        capture_output=True,
        text=True,
    )


def test_contents(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name == f"dos_plugin-{__version__}-py3-none-any.whl"
    configs = {f"dos_plugin/configs/{p.relative_to(ROOT / 'configs/dos').as_posix()}"
               for p in (ROOT / "configs/dos").rglob("*.*")
               if p.suffix in (".py", ".yaml")}  # fmt: skip
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "dos_plugin").rglob("*.py")}
    assert len(configs) > 15 and configs <= names
    assert sum(name.endswith(".yaml") for name in configs) >= 2
    pages = {f"dos_plugin/{p}" for p in ("reports/report.html", "drawing/viewer.html")}
    assert modules | pages | {"dos_plugin/drawing/viewer.js", "dos_plugin/py.typed"} <= names
    assert not any(name.startswith(("tests/", "configs/", "benchmarks/")) for name in names)


def test_requires_torch_and_numpy_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        lines = archive.read(name).decode().splitlines()
    hard = [
        line.split()[1]
        for line in lines
        if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert sorted(r.partition(">")[0] for r in hard) == ["numpy", "torch"]


def test_the_checks_of_a_release(environment, tmp_path):
    """Those that ``tests/smoke.py try`` runs where nothing but torch and numpy is installed."""
    done = run(environment, "python", smoke.__file__, "checks", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"torch {torch.__version__}, numpy {np.__version__}" in done.stdout


def test_the_checks_refuse_what_is_not_installed_there(tmp_path):
    """An import that finds the repository instead is none of the file that was to be tried."""
    command = [sys.executable, smoke.__file__, "checks"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 1 and f"AssertionError: {ROOT / 'dos_plugin'}" in done.stderr


def test_an_export_holds_what_git_tracks(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository")
    smoke.export(tmp_path)
    tracked = subprocess.check_output(
        ["git", "ls-tree", "-r", "-z", "--name-only", "HEAD"], cwd=ROOT, text=True
    )
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == set(tracked.strip("\0").split("\0"))


def test_configs_lie_inside_the_environment(environment, tmp_path):
    done = run(environment, "dos-plugin", "configs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if "-dos-v1m1-" in line]) >= 15
    name = "pretrain-dos-v1m1-9-demo"
    done = run(environment, "dos-plugin", "configs", "--path", name, cwd=tmp_path)
    path = Path(done.stdout.strip())
    assert environment in path.parents
    assert path.read_text() == (ROOT / f"configs/dos/{name}.py").read_text()


def test_doctor(environment, tmp_path):
    config = "pretrain-dos-v1m1-0-nuscenes-none"
    done = run(environment, "dos-plugin", "doctor", "--config", config, cwd=tmp_path)
    assert done.returncode == 2 and "not among the shipped ones" in done.stderr
    done = run(environment, "dos-plugin", "doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DOS-v1m1" in done.stdout and "$POINTCEPT_ROOT" in done.stdout


def test_the_package_needs_torch_and_numpy_alone(environment, tmp_path):
    """Everything else that is installed is hidden: the package and the method still import."""
    code = """
import importlib.metadata as metadata, re, sys
keep, todo = {"dos-plugin"}, ["torch", "numpy"]
while todo:
    name = re.split("[^A-Za-z0-9._-]", todo.pop())[0].lower()
    if name not in keep:
        keep.add(name)
        try:
            todo += [r for r in metadata.requires(name) or [] if "extra ==" not in r]
        except metadata.PackageNotFoundError:
            pass
keep = {re.sub("[-_.]+", "-", name) for name in keep}
hidden = set()
for module, owners in metadata.packages_distributions().items():
    if not keep & {re.sub("[-_.]+", "-", owner).lower() for owner in owners}:
        hidden.add(module)

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hide())
import dos_plugin, dos_plugin.method, dos_plugin.cli, dos_plugin.shipped, dos_plugin.commands.doctor
assert {"mmengine", "spconv", "scipy", "matplotlib"} <= hidden, hidden
print(dos_plugin.__file__)
"""
    done = run(environment, "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert environment in Path(done.stdout.strip()).parents


def test_three_lines_on_a_scan_from_an_empty_directory(environment, tmp_path):
    pytest.importorskip("spconv")
    cloud = pytest.importorskip("pypcd4").PointCloud
    root = tmp_path / "elsewhere"
    write_scans(root / "data", "train", 1)
    run_folder = write_run(root / "run", root / "data")
    (empty := tmp_path / "empty").mkdir()
    scene = root / "data/train/scan-0"
    rows = np.hstack([np.load(scene / "coord.npy"), np.load(scene / "strength.npy")])
    cloud.from_xyzi_points(rows).save(empty / "scan.pcd")
    code = f"""
import dos_plugin
encoder = dos_plugin.load({str(run_folder)!r})
features = encoder(encoder.read("scan.pcd"))
print(dos_plugin.__file__, features.per_point.shape, features.colors().shape)
"""
    done = run(environment, "python", "-c", code, cwd=empty)
    assert done.returncode == 0, done.stderr
    assert str(environment) in done.stdout
    assert "torch.Size([2100, 48]) (2100, 3)" in done.stdout
