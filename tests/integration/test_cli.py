"""The command line: light imports, friendly errors, the shipped configs."""

import json
import os
import platform
import re
import subprocess
import sys

import pytest
import torch

from dos_plugin import __version__, cli, shipped
from tests.tiny_run import write_config, write_run, write_scans


def fresh(code: str) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["configs"], ["probe-typo"]])
def test_light_commands_import_nothing_heavy(arguments):
    result = fresh(
        "import sys\n"
        "from dos_plugin.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        "print(sorted({'torch', 'numpy', 'mmengine', 'matplotlib'} & set(sys.modules)))\n"
    )
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as exit_status:
        cli.main(["--help"])
    assert exit_status.value.code == 0
    text = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert f"    {command} " in text


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as exit_status:
        cli.main([command, "--help"])
    assert exit_status.value.code == 0
    text = capsys.readouterr().out
    assert "usage:" in text
    # They are accepted by the parser: tests/integration/test_docs_links.py.
    examples = text.partition("\nexamples:\n  ")[2]
    assert re.match(rf"(\w+=\S+ )*dos-plugin {command}\b", examples)


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m dos_plugin.cli configs | true"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True
    )
    assert result.stderr == ""
    assert result.returncode in (0, 141)


def test_no_command_shows_help_and_fails(capsys):
    assert cli.main([]) == 2
    assert "usage: dos-plugin" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == "dos-plugin host torch spconv python".split()
    assert lines[0].split() == ["dos-plugin", __version__]
    assert lines[2].split()[1].partition("+")[0] == torch.__version__.partition("+")[0]
    assert lines[4].split()[1] == platform.python_version()


def test_version_of_a_host_that_is_not_imported(tmp_path):
    (tmp_path / "my_fork").mkdir()
    (tmp_path / "my_fork/__init__.py").write_text("raise SystemExit('imported')")
    command = [sys.executable, "-m", "dos_plugin.cli", "--version"]
    for name, known in (("my_fork", f"of unknown version in {tmp_path}"), ("none", "not found")):
        env = {**os.environ, "DOS_HOST": name}
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (line,) = [text for text in done.stdout.splitlines() if text.startswith("host")]
        assert name in line and line.endswith(known)


@pytest.mark.parametrize("module", ["mmengine", "matplotlib", "tensorboardX"])
def test_a_missing_extra_is_one_line_with_the_remedy(module):
    result = fresh(
        "import sys\n"
        f"sys.modules[{module!r}] = None\n"
        "from dos_plugin.cli import main\n"
        "import dos_plugin.commands.report as report\n"
        f"report.main = lambda args: __import__({module!r})\n"
        "sys.exit(main(['report', 'somewhere']))\n"
    )
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line == (
        f"dos-plugin report: needs the package '{module}', which the extra 'demo' brings: "
        "pip install 'dos-plugin[demo]'"
    )


def test_a_missing_module_that_is_no_extra_keeps_its_traceback():
    result = fresh(
        "import sys\n"
        "from dos_plugin.cli import main\n"
        "import dos_plugin.commands.configs as configs\n"
        "configs.main = lambda args: __import__('no_such_module')\n"
        "main(['configs'])\n"
    )
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_wrong_input_is_one_line_and_exit_status_2(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DOS_TRACEBACK", raising=False)
    assert cli.main(["probe", str(tmp_path / "none")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dos-plugin probe: error: ") and "no such run folder" in line
    monkeypatch.setenv("DOS_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        cli.main(["probe", str(tmp_path / "none")])


def test_configs_lists_the_demo_and_prints_its_path(capsys):
    assert cli.main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (demo,) = [line for line in lines if line.startswith("pretrain-dos-v1m1-9-demo ")]
    assert demo.split()[1:] == ["demo", "PT-v3m2", "Pointcept", "pretraining"]
    assert cli.main(["configs", "--path", "pretrain-dos-v1m1-9-demo"]) == 0
    path = capsys.readouterr().out.strip()
    assert path.endswith("configs/dos/pretrain-dos-v1m1-9-demo.py")
    assert "DOS-v1m1" in open(path).read()
    assert cli.main(["configs", "--path", "demo"]) == 2
    assert "pretrain-dos-v1m1-9-demo, semseg" in capsys.readouterr().err


def test_configs_inside_an_installed_package(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "dos_plugin"
    (package / "configs").mkdir(parents=True)
    (package / "configs" / "__init__.py").touch()
    monkeypatch.setattr(shipped, "__file__", str(package / "shipped.py"))
    base = package / "configs" / "semseg-dos-v1m1-0a-nuscenes-lin.py"
    base.write_text('model = dict(backbone=dict(depth=1, type="SpUNet-v1m1"))\n')
    child = package / "configs" / "semseg-dos-v1m1-0b-nuscenes-ft.py"
    child.write_text(f'"""Fine-tuning\nof all.\n\nMore."""\n_base_ = ["{base.name}"]\n')
    assert shipped.configs_dir() == package / "configs"
    linear, fine = shipped.list_configs()
    assert (linear.dataset, linear.backbone) == ("nuscenes", "SpUNet-v1m1")
    assert linear.task == "segmentation, linear probe"
    assert (fine.dataset, fine.backbone) == ("nuscenes", "SpUNet-v1m1")
    assert (fine.task, fine.summary) == ("segmentation, fine-tuning", "Fine-tuning of all.")


def test_a_broken_installation_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "dos_plugin" / "shipped.py"))
    with pytest.raises(FileNotFoundError, match="no configs there"):
        shipped.configs_dir()


def test_train_hands_over_to_the_embedded_host(tmp_path):
    data = tmp_path / "data"
    write_scans(data, "train", 2)
    config = write_config(tmp_path / "run", data)
    command = [sys.executable, "-m", "dos_plugin.cli", "train", "--config-file", str(config)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "model" / "model_last.pth").is_file()
    wrong = subprocess.run([*command[:-1], "none.py"], capture_output=True, text=True)
    assert wrong.returncode != 0 and "none.py" in wrong.stderr


def test_probe_command_prints_a_table(tmp_path, capsys):
    for split in ("train", "val"):
        write_scans(tmp_path / "data", split, 2)
    run = write_run(tmp_path / "run", tmp_path / "data")
    file = tmp_path / "probe.json"
    options = ["--steps", "20", "--seeds", "2", "--no-knn", "--json", str(file)]
    assert cli.main(["probe", str(run), *options]) == 0
    text = capsys.readouterr().out
    for name in ("DOS, student", "DOS, teacher", "random weights", "raw inputs"):
        assert name in text
    assert "raw inputs: strength, height, x, y, z" in text
    content = json.loads(file.read_text())
    assert f"{content['probe']['random']['miou']:.1f} ±" in text
    assert content["settings"]["seeds"] == [0, 1]

    assert cli.main(["probe", str(run / "config.py"), *options]) == 0
    text = capsys.readouterr().out
    assert "random weights" in text and "student" not in text
    (run / "model" / "model_last.pth").unlink()
    assert cli.main(["probe", str(run)]) == 2
    assert "no checkpoint there" in capsys.readouterr().err
