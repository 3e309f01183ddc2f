"""Made-up packages, the activation and the command line of dos_plugin.cpu."""

import importlib
import importlib.util
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dos_plugin.cpu
from dos_plugin.cpu import __main__ as runner
from dos_plugin.cpu import checkout, children, finder
from dos_plugin.cpu.packages import PACKAGES, Package
from dos_plugin.cpu.refused import Refused

MADE_UP = Package(
    "nowhere_lib",
    "install nowhere_lib",
    {"nowhere_lib.deep.place": ("dos_plugin.cpu.text", ("colored",))},
)


@pytest.fixture
def clean_imports(monkeypatch):
    """Takes back what a test puts into the import system."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    before = set(sys.modules)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_made_up_package_is_importable_at_any_depth(clean_imports):
    sys.meta_path.insert(0, finder.StandInFinder([MADE_UP]))
    place = importlib.import_module("nowhere_lib.deep.place")
    assert place.colored("text", "red") == "text"
    assert importlib.util.find_spec("nowhere_lib") is not None
    assert sys.modules["nowhere_lib"].__spec__ is not None
    assert importlib.util.find_spec("nowhere_library") is None, "only the named package is made up"


def test_what_a_made_up_package_lacks_is_refused_when_called_not_when_imported(clean_imports):
    sys.meta_path.insert(0, finder.StandInFinder([MADE_UP]))
    scope: dict = {}
    exec("from nowhere_lib.io import Reader\nMODE = Reader.FAST", scope)
    with pytest.raises(NotImplementedError, match=r"nowhere_lib\.io\.Reader\.FAST .*install"):
        scope["MODE"]()
    with pytest.raises(AttributeError, match="__version__"):
        _ = sys.modules["nowhere_lib"].__version__


def test_a_refused_name_survives_inspection_and_is_rebuilt_from_one_string():
    name = Refused("lib.call", "advice")
    assert repr(name) == "<lib.call, refused by dos_plugin.cpu>"
    with pytest.raises(NotImplementedError) as caught:
        name(1, option=2)
    assert str(type(caught.value)(str(caught.value))) == str(caught.value)


def test_installed_packages_are_not_replaced_and_broken_ones_are(
    clean_imports, monkeypatch, tmp_path
):
    (tmp_path / "sound_lib.py").write_text("VALUE = 1")
    (tmp_path / "broken_lib.py").write_text("raise OSError('no driver\\nsecond line')")
    (tmp_path / "gpu_lib.py").write_text("VALUE = 1")
    sys.path.insert(0, str(tmp_path))
    monkeypatch.setattr(
        finder,
        "PACKAGES",
        (
            Package("sound_lib", ""),
            Package("broken_lib", "mend it"),
            Package("gpu_lib", "", cuda_only=True),
            MADE_UP,
        ),
    )
    monkeypatch.setattr(finder, "_define_torchvision_operators", list)
    assert finder.install() == [
        "broken_lib (installed, but fails to import: no driver): import only",
        "gpu_lib (useless without CUDA): import only",
        "nowhere_lib (absent): colored",
    ]
    assert importlib.import_module("sound_lib").VALUE == 1
    with pytest.raises(NotImplementedError, match=r"broken_lib\.run .* mend it"):
        importlib.import_module("broken_lib").run()
    assert isinstance(importlib.import_module("gpu_lib").VALUE, Refused)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_the_table_promises_only_what_exists(package):
    for module, (provider, names) in package.provides.items():
        assert module.partition(".")[0] == package.name
        for name in names:
            function = getattr(importlib.import_module(provider), name)
            assert inspect.signature(function), name
    assert package.advice


def test_importing_the_package_changes_nothing():
    program = (
        "import sys; before = list(sys.meta_path); import dos_plugin.cpu, json;"
        "print(json.dumps([before == sys.meta_path, 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert json.loads(done.stdout) == [True, False], done.stderr


def test_named_packages_are_replaced_also_beside_cuda(clean_imports, monkeypatch, tmp_path, capsys):
    """And nothing else: a GPU machine without the compiled operators stays a GPU machine."""
    (tmp_path / "nowhere_lib.py").write_text("VALUE = 1")  # installed, and replaced all the same
    sys.path.insert(0, str(tmp_path))
    monkeypatch.setattr(finder, "PACKAGES", (MADE_UP, Package("absent_lib", "")))
    monkeypatch.setattr(dos_plugin.cpu, "_filled_in", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(children, "install", lambda module: None)
    monkeypatch.setenv("DOS_STAND_INS", "nowhere_lib")
    before = torch.Tensor.cuda, torch.cuda.synchronize, torch.histc
    assert dos_plugin.cpu.activate() == ["nowhere_lib (named): colored"]
    assert importlib.import_module("nowhere_lib.deep.place").colored("text", "red") == "text"
    assert importlib.util.find_spec("absent_lib") is None
    assert (torch.Tensor.cuda, torch.cuda.synchronize, torch.histc) == before
    assert "nowhere_lib (named)" in capsys.readouterr().err


def test_named_on_the_command_line(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys, torch_scatter; print(torch_scatter.scatter_sum, *sys.argv[1:])")
    command = [sys.executable, "-m", "dos_plugin.cpu", "--stand-ins"]

    def run(*rest):
        return subprocess.run([*command, *rest], capture_output=True, text=True, cwd=tmp_path)

    done = run("torch_scatter,torch_cluster", str(script), "--flag")
    assert "scatter_sum" in done.stdout and done.stdout.endswith("--flag\n"), done.stderr
    assert "torch_scatter (named): scatter" in done.stderr
    done = run("torch_scater", str(script))
    assert done.returncode == 1 and "no stand-in for torch_scater; there are" in done.stderr
    assert "Traceback" not in done.stderr


def test_with_cuda_nothing_is_filled_in(monkeypatch, capsys):
    monkeypatch.setattr(dos_plugin.cpu, "_filled_in", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = list(sys.meta_path), torch.Tensor.cuda, torch.histc
    assert dos_plugin.cpu.activate() == []
    assert (list(sys.meta_path), torch.Tensor.cuda, torch.histc) == before
    assert "CUDA is available, nothing is filled in" in capsys.readouterr().err


@pytest.fixture
def quiet_runner(clean_imports, monkeypatch):
    """The runner's main without the activation, which would change this process for good."""
    activated: list[bool] = []
    monkeypatch.setattr(runner, "activate", lambda: activated.append(True))
    monkeypatch.setattr(runner, "find_pointcept", lambda: None)
    yield runner.main
    assert activated == [True]


def test_code_runs_like_python_c(quiet_runner, capsys):
    quiet_runner(["-c", "import sys; print(__name__, sys.argv)", "a", "-b"])
    assert capsys.readouterr().out == "__main__ ['-c', 'a', '-b']\n"


def test_a_module_runs_like_python_m(quiet_runner, tmp_path, capsys):
    (tmp_path / "a_module_of_ours.py").write_text("import sys; print(__name__, sys.argv)")
    sys.path.insert(0, str(tmp_path))
    quiet_runner(["-m", "a_module_of_ours", "-q"])
    assert capsys.readouterr().out == (f"__main__ ['{tmp_path / 'a_module_of_ours.py'}', '-q']\n")


def test_a_host_script_finds_the_checkout_it_lies_in(quiet_runner, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DOS_HOST", "renamed_fork")
    (tmp_path / "renamed_fork").mkdir()
    (tmp_path / "renamed_fork/__init__.py").write_text("NAME = 'fork'")
    (tmp_path / "tools").mkdir()
    script = tmp_path / "tools/train.py"
    script.write_text("import renamed_fork, sys; print(renamed_fork.NAME, sys.argv, sys.path[:2])")
    quiet_runner([str(script), "--num-gpus", "1"])
    assert capsys.readouterr().out == (
        f"fork {[str(script), '--num-gpus', '1']} {[str(tmp_path / 'tools'), str(tmp_path)]}\n"
    )


def test_elsewhere_the_usual_checkout_is_appended(quiet_runner, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DOS_HOST", "fork_out_of_reach")
    monkeypatch.setattr(runner, "find_pointcept", lambda: tmp_path)
    quiet_runner(["-c", "import sys; print(sys.path[-1])"])
    assert capsys.readouterr().out == f"{tmp_path}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "2"),
        (["-m"], "argument expected for -m"),
        (["--verbose", "x.py"], "unknown option --verbose"),
        (["no_such_script.py"], "no such script: no_such_script.py"),
    ],
)
def test_bad_command_lines_end_before_anything_is_filled_in(monkeypatch, arguments, message):
    monkeypatch.setattr(runner, "activate", lambda: pytest.fail("activated"))
    with pytest.raises(SystemExit, match=message):
        runner.main(arguments)


def test_the_checkout_is_looked_for_where_the_variable_points(monkeypatch, tmp_path):
    monkeypatch.setenv("POINTCEPT_ROOT", str(tmp_path))
    assert checkout.find_pointcept() is None
    with pytest.raises(FileNotFoundError, match="POINTCEPT_ROOT"):
        checkout.run_on_host("-c", "pass")
    (tmp_path / "pointcept").mkdir()
    (tmp_path / "pointcept/__init__.py").touch()
    assert checkout.find_pointcept() == tmp_path
    monkeypatch.delenv("POINTCEPT_ROOT")
    monkeypatch.setattr(checkout, "DEFAULT_CHECKOUT", Path(tmp_path))
    assert checkout.find_pointcept() == tmp_path


def test_missing_requirements_are_named_for_pip(monkeypatch):
    monkeypatch.setattr(finder, "REQUIRED", {"torch": "torch", "nowhere_lib": "nowhere-lib"})
    assert finder.missing_requirements() == ["nowhere-lib"]
