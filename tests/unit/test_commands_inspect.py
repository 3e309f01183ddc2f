"""What inspect says of a checkpoint, against what was put in."""

import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("spconv")
pytest.importorskip("torch_pointcloud")

from dos_plugin.commands.export import export, write
from dos_plugin.commands.inspect import format_info, inspect
from dos_plugin.minihost.checkpoint import rename_keys
from dos_plugin.models.backbone import build_backbone
from dos_plugin.runs.checkpoint import load_file
from dos_plugin.runs.config import read_literals
from tests.exported_runs import BACKBONES, make_run
from tests.tiny_run import write_config


@pytest.fixture(scope="module", params=["m1", "m1-decoder", "m2", "m2-token", "spunet"])
def run(request, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp(request.param), BACKBONES[request.param])


def test_a_pretraining(run):
    config = run.config.model.backbone
    info = inspect(run.checkpoint)
    assert info.kind == "DOS pretraining" and info.epoch == 3
    assert info.bytes == run.checkpoint.stat().st_size
    assert info.dtypes[0] == "float32" and info.not_finite == []
    assert info.head_channels == [run.config.model.backbone_out_channels, 16, 12]
    assert info.prototypes == [20, 12] and info.prototypes_of == ["student"]
    backbone = build_backbone(run.config)
    for branch in ("student", "teacher"):
        facts = info.branches[branch]
        assert facts.type == config["type"] and facts.in_channels == 2
        assert facts.parameters == sum(p.numel() for p in backbone.parameters())
        assert bool(facts.mask_token) == bool(config.get("mask_token"))
    facts = info.branches["student"]
    if config["type"] == "SpUNet-v1m1":
        assert facts.enc_channels == [8, 16] and facts.dec_channels == [12, 16]
    else:
        assert facts.enc_channels == [16, 24, 32]
    outputs = {"PT-v3m1": 16 + 24 + 32, "PT-v3m2": 16 + 24 + 32, "SpUNet-v1m1": 12}
    assert facts.out_channels == (
        16 if facts.dec_channels and "PT" in facts.type else outputs[facts.type]
    )
    assert info.input == "strength, height; voxels of 0.5 m"
    assert info.config == str(run.config_path) and info.differs is None
    text = format_info(info)
    assert f"{config['type']}, " in text and "20 of 12 channels (student)" in text


def test_exported_files(run, tmp_path):
    for to in ("pointcept", "torch-pointcloud"):
        write(export(run, to, "teacher"), tmp_path / to)
        info = inspect(tmp_path / to)
        assert info.kind == "exported" and info.exported["format"] == to
        assert list(info.branches) == ["teacher"] and info.epoch == 3
        expected = inspect(run.checkpoint).branches["teacher"]
        if to == "torch-pointcloud" and expected.mask_token:
            expected = replace(expected, mask_token=None, parameters=expected.parameters - 16)
        assert info.branches["teacher"] == expected
        assert info.input == "strength, height; voxels of 0.5 m"
        assert info.differs is None
    assert "dos_plugin.runs.torch_pointcloud.load(" in info.to_load[0]


def test_the_suggested_keywords_lead_to_the_backbone(run, tmp_path):
    """Every line that names the host's loader, applied with the host's renaming."""
    own = set(build_backbone(run.config).state_dict())
    token = {"embedding.mask_token"} & own
    sonata = {
        key.replace("student.head", "student.mask_head"): value
        for key, value in load_file(run.checkpoint)["state_dict"].items()
    }
    bare = {
        key.removeprefix("module.student.backbone."): value
        for key, value in sonata.items()
        if key.startswith("module.student.backbone.")
    }
    files = {"pretraining": run.checkpoint}
    for name, content in {
        "sonata": dict(state_dict=sonata),
        "bare": dict(state_dict=bare),
        "no state_dict": bare,
        "foreign": dict(state_dict={f"net.trunk.{key}": value for key, value in bare.items()}),
        "segmentor": dict(state_dict={f"module.backbone.{k}": v for k, v in bare.items()}),
        "pointcept": export(run, "pointcept"),
    }.items():
        files[name] = tmp_path / name
        torch.save(content, files[name])
    kinds = {name: inspect(path).kind for name, path in files.items()}
    assert kinds["sonata"] == "other pretraining" and kinds["segmentor"] == "segmentation run"
    assert kinds["bare"] == kinds["no state_dict"] == kinds["foreign"] == "other"
    for name, path in files.items():
        lines = [line for line in inspect(path).to_load if "CheckpointLoader" in line]
        assert lines, name
        content = torch.load(path)
        for line in lines:
            hook = eval(line)
            keywords = hook.get("keywords", "")
            replacement = hook.get("replacement", keywords)
            state = content.get("state_dict", content)
            renamed, _ = rename_keys(state, keywords, replacement, distributed=False)
            found = {k.removeprefix("backbone.") for k in renamed if k.startswith("backbone.")}
            assert own - token <= found, (name, line)


def test_nan_half_precision_and_other_widths_are_seen(tmp_path):
    run = make_run(tmp_path, BACKBONES["m2"])
    content = load_file(run.checkpoint)
    name = "module.student.backbone.enc.enc1.down.proj.weight"
    content["state_dict"][name][0, 0] = float("nan")
    content["state_dict"]["module.student.head.mlp.0.bias"] = torch.zeros(16).half()
    torch.save(content, run.checkpoint)
    info = inspect(run.checkpoint)
    assert info.not_finite == [name.removeprefix("module.")]
    assert info.dtypes == ["float16", "float32"]
    assert "NO: NaN or inf in 1 tensors: student.backbone.enc.enc1.down" in format_info(info)
    write_config(tmp_path, tmp_path / "data")  # encoder of 8, 16, 24
    info = inspect(run.checkpoint)
    assert info.differs == "enc_channels=(8, 16, 24) in the config, [16, 24, 32] in the file"
    (tmp_path / "config.py").write_text("import os\n")
    assert "config.py, line 1: expected an assignment" in inspect(run.checkpoint).config
    (tmp_path / "config.py").unlink()
    assert inspect(run.checkpoint).config == "none beside it"


def test_it_needs_torch_alone(tmp_path):
    run = make_run(tmp_path, BACKBONES["m2"])
    code = (
        "import sys\n"
        "for name in ('spconv', 'mmengine', 'torch_pointcloud', 'pointcept', 'tqdm'):\n"
        "    sys.modules[name] = None\n"
        "from dos_plugin.cli import main\n"
        f"sys.exit(main(['inspect', {str(run.checkpoint)!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "DOS pretraining" in done.stdout and "PT-v3m2" in done.stdout


class Odd:
    """Something that a checkpoint should not hold."""


def test_files_that_cannot_be_read_safely_are_refused(tmp_path):
    torch.save(dict(state_dict={}, extra=Odd()), tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd.pth: holds \S*Odd objects, which could run code"):
        load_file(tmp_path / "odd.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list.pth: holds no tensors by name"):
        inspect(tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match=r"text.pth: truncated or not a torch file"):
        inspect(tmp_path / "text.pth")
    with pytest.raises(FileNotFoundError, match=r"none.pth: no such file"):
        inspect(tmp_path / "none.pth")


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numbers_of_either_numpy_are_read(tmp_path, module):
    """The host saves some; NumPy 1 and 2 name what makes them differently."""
    here = np.float64(0).__reduce__()[0].__module__
    torch.save(dict(best_metric_value=np.float64(0.5)), tmp_path / "here.pth")
    with (
        zipfile.ZipFile(tmp_path / "here.pth") as source,
        zipfile.ZipFile(tmp_path / "there.pth", "w") as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(here.encode(), module.encode()))
    assert load_file(tmp_path / "there.pth") == dict(best_metric_value=0.5)


def test_configs_are_read_without_running_them(tmp_path):
    path = tmp_path / "config.py"
    path.write_text('"""Doc."""\na = -1.5\nb = dict(c=[a, (1, None)], d={"e": True})\nf = b\n')
    expected = dict(a=-1.5, b=dict(c=[-1.5, (1, None)], d=dict(e=True)))
    assert read_literals(path) == expected | dict(f=expected["b"])
    for text, message in {
        "a = print(1)\n": "line 1: malformed node",
        "a = 1\nimport os\n": "line 2: expected an assignment",
        "a = dict([1])\n": "line 1: malformed node",
        '_base_ = ["x.py"]\n': "builds on",
        "a = (\n": "is no Python file",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_literals(path)
    with pytest.raises(FileNotFoundError, match="no such config file"):
        read_literals(tmp_path / "none.py")
