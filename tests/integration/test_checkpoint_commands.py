"""export, inspect and probe as they are typed, on the embedded and on the real host."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("spconv")
pytest.importorskip("torch_pointcloud")

from dos_plugin import cli
from dos_plugin.cpu.checkout import find_pointcept, run_on_host
from dos_plugin.runs.checkpoint import read_checkpoint
from tests.tiny_run import write_run, write_scans

QUICK = ["--steps", "20", "--seeds", "1", "--no-knn"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    for split in ("train", "val"):
        write_scans(root / "data", split, 2)
    write_run(root / "run", root / "data")
    return root


@pytest.fixture
def checkpoint(root):
    return str(root / "run" / "model" / "model_last.pth")


def fails(capsys, *arguments):
    """The one line, below the host's log, that a command leaves when it refuses its input."""
    assert cli.main([str(argument) for argument in arguments]) == 2
    *log, line = capsys.readouterr().err.strip().splitlines()
    assert all("samples in" in other for other in log)
    return line


def probed(file, capsys, *arguments):
    assert cli.main(["probe", *map(str, arguments), *QUICK, "--json", str(file)]) == 0
    capsys.readouterr()
    return json.loads(file.read_text())["probe"]


def test_from_checkpoint_to_exported_files_and_their_probes(root, checkpoint, tmp_path, capsys):
    data = root / "data"
    whole = probed(tmp_path / "a.json", capsys, checkpoint, "--data", data)
    assert list(whole) == ["student", "teacher", "random", "raw"]
    for to in ("pointcept", "torch-pointcloud"):
        file = tmp_path / f"{to}.pth"
        options = ["--to", to, "-o", str(file), "--branch", "teacher"]
        assert cli.main(["export", checkpoint, *options]) == 0
        text = capsys.readouterr().out
        assert f"{file}: PT-v3m2, teacher of {checkpoint} (DOS pretraining, epoch 1)" in text
        assert "strength, height (in_channels=2) of voxels of 0.5 m" in text
        found = probed(tmp_path / "b.json", capsys, file, "--data", data)
        assert list(found) == ["teacher", "random", "raw"]
        assert found["teacher"] == whole["teacher"] and found["raw"] == whole["raw"]
        assert cli.main(["inspect", str(file), "--json", "-"]) == 0
        assert json.loads(capsys.readouterr().out)["exported"]["format"] == to


def test_a_segmentation_run_is_probed_and_exported(root, checkpoint, tmp_path, capsys):
    """Its config is the pretraining's here, with the segmentor's names in the checkpoint."""
    state = read_checkpoint(checkpoint).state
    kept = {k.removeprefix("student."): v for k, v in state.items() if "student.backbone" in k}
    path = tmp_path / "model" / "model_best.pth"
    path.parent.mkdir()
    torch.save(dict(epoch=1, state_dict=kept | {"seg_head.weight": torch.zeros(3, 48)}), path)
    (tmp_path / "config.py").write_text((root / "run" / "config.py").read_text())
    found = probed(tmp_path / "a.json", capsys, path, "--data", root / "data")
    assert list(found) == ["segmentor", "random", "raw"]
    whole = probed(tmp_path / "b.json", capsys, checkpoint, "--sources", "student")
    assert found["segmentor"] == whole["student"]
    assert cli.main(["export", str(path), "--to", "pointcept", "-o", str(tmp_path / "x")]) == 0
    assert "segmentor of" in capsys.readouterr().out
    assert cli.main(["inspect", str(path)]) == 0
    assert "classes     3" in capsys.readouterr().out


def test_bad_checkpoints_are_one_line(root, checkpoint, tmp_path, capsys):
    cut = tmp_path / "cut.pth"
    cut.write_bytes(open(checkpoint, "rb").read()[:2000])
    text = tmp_path / "text.pth"
    text.write_text("hello")
    other = tmp_path / "other.pth"
    torch.save(dict(state_dict={"resnet.conv1.weight": torch.zeros(2)}), other)
    config = ["--config", root / "run" / "config.py"]
    export = ["--to", "pointcept", "-o", tmp_path / "out.pth"]
    for command, options in (("export", [*export, *config]), ("probe", config), ("inspect", [])):
        none = fails(capsys, command, tmp_path / "none.pth", *options)
        assert none.startswith(f"dos-plugin {command}: error: {tmp_path}/none.pth: no such")
        for file in (cut, text):
            line = fails(capsys, command, file, *options)
            assert f"{file}: truncated or not a torch file" in line
        if command != "inspect":
            line = fails(capsys, command, other, *options)
            assert "holds no DOS model, its keys start with resnet.conv1" in line
    assert cli.main(["inspect", str(other)]) == 0
    assert "no backbone known here; they start with resnet.conv1" in capsys.readouterr().out
    assert "no config there" in fails(capsys, "probe", other)
    assert "is the checkpoint itself" in fails(
        capsys, "export", checkpoint, "--to", "pointcept", "-o", checkpoint
    )
    line = fails(capsys, "export", checkpoint, *export, "--branch", "segmentor")
    assert "holds no 'segmentor' backbone (DOS pretraining), it has: student, teacher" in line
    wider = tmp_path / "wider.py"
    wider.write_text((root / "run" / "config.py").read_text().replace("(8, 16, 24)", "(8, 16, 48)"))
    line = fails(capsys, "export", checkpoint, *export, "--config", wider)
    assert "does not fit PointTransformerV3m2" in line and "other shape" in line
    assert not (tmp_path / "out.pth").exists()


def test_bad_data_is_one_line(checkpoint, tmp_path, capsys):
    data = tmp_path / "data"
    probe = ["probe", checkpoint, *QUICK, "--data"]
    assert f"{data}: no such data root" in fails(capsys, *probe, data)
    write_scans(data, "train", 2, labels=False)
    write_scans(data, "val", 2, labels=False)
    assert "scan-0 and 3 more scans have no labels" in fails(capsys, *probe, data)
    for split in ("train", "val"):
        for index in range(2):
            file = data / split / f"scan-{index}" / "segment.npy"
            np.save(file, np.full(2100, 2, np.int32))
    assert "train: 2 scans as scan-0 have labels of 1 classes (2)" in fails(capsys, *probe, data)
    np.save(data / "train" / "scan-0" / "segment.npy", np.repeat([0, 2], 1050).astype(np.int32))
    np.save(data / "val" / "scan-0" / "segment.npy", np.full(2100, -1, np.int32))
    assert cli.main([*map(str, [*probe, data, "--sources", "raw"])]) == 0
    assert "data/test" in fails(capsys, *probe, data, "--val-split", "test")


@pytest.mark.skipif(
    find_pointcept() is None,
    reason="no Pointcept checkout at POINTCEPT_ROOT or ~/.cache/dos-plugin/Pointcept",
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="nothing is filled in beside CUDA")
def test_on_the_real_host(root, checkpoint, tmp_path, capsys):
    def command(*arguments):
        done = run_on_host(
            "-m", "dos_plugin.cli", *arguments, env={"DOS_HOST": "pointcept"}, timeout=300
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    file, table = tmp_path / "file.pth", tmp_path / "real.json"
    command("export", checkpoint, "--to", "torch-pointcloud", "-o", file)
    command("probe", file, "--data", root / "data", *QUICK, "--json", table)
    content = json.loads(table.read_text())
    assert content["host"] == "pointcept"
    here = probed(tmp_path / "here.json", capsys, checkpoint, "--data", root / "data")
    # The hosts' grid samplings draw other points of a voxel.
    for source in ("student", "raw"):
        assert content["probe"][source]["miou"] == pytest.approx(here[source]["miou"], abs=8)
    assert content["probe"]["student"]["channels"] == here["student"]["channels"]
