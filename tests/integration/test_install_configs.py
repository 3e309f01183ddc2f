"""dos-plugin configs: the list, and the configs in a checkout of the host."""

import os
import re
from pathlib import Path

import pytest

from dos_plugin import cli, shipped


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/train.py").touch()
    (tmp_path / "configs/_base_").mkdir(parents=True)
    return tmp_path


def install(checkout, *options):
    return cli.main(["configs", "--install", str(checkout), *options])


def test_columns_of_the_list(capsys):
    assert cli.main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split(None, 4)[1:] for line in lines if line}
    name = "pretrain-dos-v1m1-"
    assert rows[name + "0-semantic-kitti"] == [
        "semantic-kitti",
        "PT-v3m2",
        "Pointcept",
        "pretraining",
    ]
    assert rows[name + "1-waymo-spunet"] == ["waymo", "SpUNet-v1m1", "Pointcept", "pretraining"]
    assert rows[name + "2-nuscenes-pt-v3m1"] == ["nuscenes", "PT-v3m1", "Pointcept", "pretraining"]
    assert rows[name + "3-scannet-1gpu"] == [
        "scannet",
        "PT-v3m2",
        "Pointcept",
        "pretraining, one GPU",
    ]
    for name, host, text in (
        ("objdet-dos-v1m1-0b-nuscenes-20pct-ft", "MMDetection3D", "fine-tuning, 20 % of labels"),
        ("openpcdet/objdet-dos-v1m1-0a-nuscenes-ft.yaml", "OpenPCDet", "fine-tuning"),
    ):
        row = rows[f"detection/{name}"]
        assert row == ["nuscenes", "PT-v3m2", host, f"detection, {text}"]
    assert not any(row.startswith(("runtime", "lidar", "pt-v3m2", "_base_")) for row in rows)


def listed(capsys, *words) -> list[str]:
    """Names that the command lists."""
    assert cli.main(["configs", *words]) == 0
    table = capsys.readouterr().out.split("\n\n")[0]
    return [line.split()[0] for line in table.splitlines()[1:]]


def test_words_choose_rows(capsys):
    everything = listed(capsys)
    own = [config.name for config in shipped.list_configs()]
    assert everything[: len(own)] == own and len(everything) >= len(own) + 10
    assert {shipped.config_path(name).suffix for name in everything} == {".py", ".yaml"}
    for host in ("MMDetection3D", "openpcdet"):
        assert all(name.startswith("detection/") for name in listed(capsys, host))
    assert listed(capsys, "nuscenes") == [name for name in everything if "nuscenes" in name]
    assert listed(capsys, "Waymo", "SPUNET-V", "linear") == ["semseg-dos-v1m1-1a-waymo-spunet-lin"]
    assert listed(capsys, "0.1 %", "scannet") == ["semseg-dos-v1m1-2c-scannet-0p1pct-ft"]
    assert len(listed(capsys, "pretraining", "one gpu")) == 5
    assert all(name.startswith("pretrain-") for name in listed(capsys, "pretrain"))


def test_words_that_fit_no_row_are_named_with_what_there_is(capsys):
    assert cli.main(["configs", "waymo", "kitti360"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'waymo' and 'kitti360'" in line
    for there in ("semantic-kitti", "PT-v3m1", "linear probe"):
        assert there in line
    for option in (["--path", "pretrain-dos-v1m1-9-demo"], ["--install", "."]):
        assert cli.main(["configs", *option, "waymo"]) == 2
        captured = capsys.readouterr()
        assert "waymo: words choose what is listed" in captured.err and not captured.out


def test_the_page_about_pointcept_has_every_config():
    page = (Path(__file__).parents[2] / "docs/pointcept.md").read_text()
    lines = page.partition("## Which config")[2].partition("## Pretrain")[0].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| data set |"))
    tasks = ["pretrain", "semseg", "semseg", "semseg", "semseg", "objdet"]
    names = []
    for line in lines[start + 2 : lines.index("", start)]:
        for column, cell in enumerate(line.split("|")[2:-1]):
            for name in re.findall("`(.+?)`", cell):
                first, _, rest = name.partition("{")
                choices, _, last = rest.partition("}")
                task = tasks[column]
                names += [f"{task}-dos-v1m1-{first}{part}{last}" for part in choices.split(",")]
    assert sorted(names) == [config.name for config in shipped.list_configs()]


@pytest.mark.parametrize("copy", [False, True])
def test_installed_configs_load_from_the_checkout(checkout, copy, capsys):
    from dos_plugin.host import HOST

    assert install(checkout, *["--copy"] * copy) == 0
    assert str(checkout / "configs/dos") in capsys.readouterr().out
    folder = checkout / "configs/dos"
    installed = sorted(path.stem for path in folder.glob("*.py"))
    assert installed == [config.name for config in shipped.list_configs()]
    assert {path.is_symlink() for path in folder.rglob("*.py")} == {not copy}
    assert (folder / "_base_").is_dir() and not (folder / "detection").exists()
    for name in (
        "pretrain-dos-v1m1-3-outdoor-1gpu",
        "pretrain-dos-v1m1-2-nuscenes-pt-v3m1",
        "semseg-dos-v1m1-0d-scannet-nocolor-lin",
        "semseg-dos-v1m1-1c-scannet200-spunet-ft",
        "semseg-dos-v1m1-2c-nuscenes-1pct-ft",
        "semseg-dos-v1m1-9c-demo-ft",
    ):
        here = HOST.Config.fromfile(str(folder / f"{name}.py"))
        assert here._cfg_dict == HOST.Config.fromfile(str(shipped.config_path(name)))._cfg_dict


def test_installing_again_changes_nothing_and_mends_dead_links(checkout, capsys):
    assert install(checkout) == 0
    first = capsys.readouterr().out
    link = checkout / "configs/dos/_base_/runtime.py"
    link.unlink()
    link.symlink_to(checkout / "gone.py")
    assert install(checkout) == 0
    assert "linked 1 files" in capsys.readouterr().out and link.exists()
    assert "linked 0 files" not in first
    assert install(checkout, "--copy") == 0
    assert "copied 0 files" in capsys.readouterr().out


def test_other_files_in_the_way_are_named_and_nothing_is_written(checkout, capsys):
    folder = checkout / "configs/dos"
    folder.mkdir()
    mine = folder / "pretrain-dos-v1m1-0-waymo.py"
    mine.write_text("epoch = 1\n")
    (folder / "my-own.py").write_text("epoch = 2\n")
    assert install(checkout) == 2
    error = capsys.readouterr().err
    assert str(mine) in error and "my-own" not in error and len(error.splitlines()) == 1
    assert sorted(os.listdir(folder)) == ["my-own.py", mine.name]
    assert mine.read_text() == "epoch = 1\n"
    mine.unlink()
    assert install(checkout) == 0
    assert (folder / "my-own.py").read_text() == "epoch = 2\n"


def test_what_is_no_checkout_is_refused(tmp_path, capsys):
    assert install(tmp_path) == 2
    assert "tools/train.py" in capsys.readouterr().err
    assert install(tmp_path / "none") == 2
    assert not list(tmp_path.iterdir())
    assert cli.main(["configs", "--copy"]) == 2
    assert "--install" in capsys.readouterr().err
