"""The five examples of docs/extending.md: their files as the page has them, their commands as one
types them, on scans of 2,100 points and with less to train."""

import importlib
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("spconv", reason="the embedded host needs the extra 'demo'")

from dos_plugin import cli, host
from dos_plugin.cpu.checkout import find_pointcept, run_on_host
from tests.pages import ROOT, blocks, commands
from tests.tiny_run import write_run, write_scans

PAGE = "docs/extending.md"

pytestmark = pytest.mark.skipif(not (ROOT / PAGE).is_file(), reason="needs the source tree")

TRAIN, VAL, POINTS = 4, 2, 2100
FEWER = ["epoch=1", "eval_epoch=1", "batch_size=2"]
SMALL = [*FEWER, "data.train.transform.2.max_size=600", "hooks.9.steps=5"]


def files() -> dict[str, str]:
    """The files of the page: their name stands in front of the block."""
    named = r"^`([\w.-]+)`:\n\n```python\n(.*?)^```$"
    return dict(re.findall(named, (ROOT / PAGE).read_text(), re.MULTILINE | re.DOTALL))


def typed() -> list[tuple[dict[str, str], list[str]]]:
    """The commands of the page: variables in front, and words."""
    return [c for language, text in blocks(PAGE) if language == "sh" for c in commands(text)]


def command(*start: str) -> tuple[dict[str, str], list[str]]:
    """The one command of the page whose words begin so."""
    (found,) = [(v, words) for v, words in typed() if tuple(words[: len(start)]) == start]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of the page, and scans in the place of the synthetic streets."""
    root = tmp_path_factory.mktemp("extending")
    for name, text in files().items():
        (root / name).write_text(text)
    (root / "configs").symlink_to(ROOT / "configs")
    write_scans(root / "data/dos-demo", "train", TRAIN)
    write_scans(root / "data/dos-demo", "val", VAL)
    yield root
    for registry, name in (
        ("MODELS", "CellMLP"),
        ("MODELS", "DOS-Contrast"),
        ("DATASETS", "Frames"),
    ):
        getattr(host.HOST, registry).module_dict.pop(name, None)
    for name in [m for m in sys.modules if m.partition(".")[0] + ".py" in files()]:
        del sys.modules[name]


@pytest.fixture
def run(folder, monkeypatch):
    """Runs a command of the page with more options, in the folder; returns its exit status."""
    monkeypatch.chdir(folder)
    # `dos-plugin` does not have the working folder there, unless PYTHONPATH says so.
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(folder))])
    monkeypatch.setenv("MPLBACKEND", "agg")

    def run(*start: str, more: Sequence[str] = ()) -> int:
        variables, (program, *words) = command(*start)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        if "PYTHONPATH" in variables:
            monkeypatch.syspath_prepend(str(folder))
        if program == "dos-plugin":
            return cli.main([*words, *more])
        assert program == "python"
        return subprocess.run([sys.executable, *words, *more], timeout=120).returncode

    return run


def train(run, config: str, more: list[str]) -> str:
    """Train with a config of the page; returns the log."""
    more = ["num_worker=0", *more]
    assert run("dos-plugin", "train", "--config-file", config, more=more) == 0
    (folder,) = re.findall(r'^save_path = "(.+)"', Path(config).read_text(), re.MULTILINE)
    return Path(folder, "train.log").read_text()


def checkpoint(run: str) -> dict[str, torch.Tensor]:
    return torch.load(f"{run}/model/model_last.pth", weights_only=False)["state_dict"]


def moved(state: dict[str, torch.Tensor]) -> list[str]:
    """Parameters of the student's backbone, all of which differ from the teacher's.

    The teacher began with the same values and follows slowly, so the student was trained.
    """
    names = [name for name in state if name.startswith("student.backbone.")]
    for name in names:
        assert not torch.equal(state[name], state[name.replace("student", "teacher", 1)]), name
    return names


def test_backbone(run):
    log = train(run, "pretrain-cell-mlp.py", SMALL)
    (said, of_backbone) = re.search(r"`(Num params: \d+)`: ([\d,]+) of", page_text()).groups()
    assert f"{said}\n" in log
    state = checkpoint("exp/dos/cell-mlp")
    numbers = sum(state[name].numel() for name in moved(state))
    assert numbers == int(of_backbone.replace(",", "")) > 0
    assert run("dos-plugin", "features") == 0
    found = sorted(Path("features").rglob("*.npz"))
    assert len(found) == VAL
    for file in found:
        feat = np.load(file)["feat"]
        assert feat.shape == (POINTS, 64) and np.isfinite(feat).all() and feat.std() > 0


def test_backbone_parts_the_clouds(run, folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    backbone = importlib.import_module("cell_mlp").CellMLP(in_channels=2, channels=8).eval()
    rng = torch.Generator().manual_seed(0)
    clouds = [
        dict(
            feat=torch.randn(count, 2, generator=rng),
            grid_coord=torch.randint(0, 40, (count, 3), generator=rng),
            offset=torch.tensor([count]),
        )
        for count in (50, 1, 80)
    ]
    together = {key: torch.cat([cloud[key] for cloud in clouds]) for key in clouds[0]}
    together["offset"] = together["offset"].cumsum(0)
    alone = torch.cat([backbone(cloud) for cloud in clouds])
    torch.testing.assert_close(backbone(together), alone)


def test_data_set(run, folder):
    assert run("python", "make_files.py") == 0
    log = train(run, "pretrain-frames.py", SMALL)
    assert f"{TRAIN} samples in frames, split train" in log
    assert "Probe of epoch 0" in log and "Probe of epoch 1:" in log
    assert moved(checkpoint("exp/dos/frames"))
    log = train(run, "semseg-frames.py", FEWER)
    assert f"{VAL} samples in frames, split val" in log and "Best mIoU: " in log
    assert "Missing, they keep random weights: 2 (seg_head.weight, seg_head.bias)" in log

    frames = host.HOST.DATASETS.build(dict(type="Frames", data_root="frames", split="val"))
    for number, scene in enumerate(sorted(Path("data/dos-demo/val").iterdir())):
        sample = frames[number]
        assert sample["name"] == scene.name and sample["split"] == "val"
        for key in ("coord", "strength", "segment"):
            np.testing.assert_array_equal(sample[key], np.load(scene / f"{key}.npy"))
    Path("bare/train").mkdir(parents=True)
    np.savez("bare/train/0.npz", points=np.zeros((5, 4)))
    bare = host.HOST.DATASETS.build(dict(type="Frames", data_root="bare"))[0]
    assert bare["segment"].tolist() == [-1] * 5 and bare["coord"].dtype == np.float32


def test_target(run):
    """Rows that all look alike have the loss log(rows), in each of the four calls."""
    log = train(run, "pretrain-contrast.py", [*SMALL, "model.temperature=1e6", "model.rows=16"])
    values = re.findall(r" loss: ([\d.]+) same_view_loss: ([\d.]+) cross_view_loss: ([\d.]+)", log)
    assert len(values) >= TRAIN / 2
    np.testing.assert_allclose(np.array(values, float), 2 * math.log(16), atol=1e-3)
    state = checkpoint("exp/dos/contrast")
    assert moved(state) and not [name for name in state if "prototypes" in name]

    model = host.HOST.MODELS.get("DOS-Contrast")
    own = type("Own", (), dict(temperature=0.1, rows=100))
    rng = torch.Generator().manual_seed(0)
    student, teacher = torch.nn.functional.normalize(torch.randn(2, 9, 4, generator=rng), dim=2)
    expected = [
        -math.log(
            math.exp(student[i] @ teacher[i] / 0.1)
            / sum(math.exp(student[i] @ teacher[j] / 0.1) for j in range(9))
        )
        for i in range(9)
    ]
    loss = model.pair_loss(own, student, teacher, None)
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-4)
    none = torch.zeros(0, 4, requires_grad=True)
    loss = model.pair_loss(own, none, none.detach(), None)
    assert loss.item() == 0 and loss.requires_grad


def test_reader(run, capfd):
    if not Path("drive").is_dir():
        assert run("python", "make_files.py") == 0
    # Two workers, which know the format since they import the file, too.
    assert run("python", "cm_reader.py", "ingest", more=["--workers", "2"]) == 0
    said = capfd.readouterr().out
    assert f"{TRAIN + VAL} scans: strength from 'intensity'" in said and "divided by 255" in said
    scenes = list(Path("data/cm/train").iterdir())
    assert len(scenes) == TRAIN + VAL
    for scene in scenes:
        split, _, name = scene.name.partition("-")
        for key, step in (("coord", 0.01), ("strength", 1 / 255)):
            source = np.load(f"data/dos-demo/{split}/{name}/{key}.npy")
            np.testing.assert_allclose(np.load(scene / f"{key}.npy"), source, atol=0.51 * step)

    python = [sys.executable, "cm_reader.py"]
    words = re.search(r"`python cm_reader.py (features .+?)`", page_text())[1].split()
    write_run(Path("exp/dos/demo"), Path("data/dos-demo"))
    assert subprocess.run([*python, *words], timeout=120).returncode == 0
    assert len(list(Path("features").rglob("train-scan-*.npz"))) == TRAIN
    Path("drive/bad.cm").write_bytes(b"CM02" + bytes(70))
    try:
        done = subprocess.run(
            [*python, "ingest", "drive", "--out", "data/cm"],
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        Path("drive/bad.cm").unlink()
    assert done.returncode == 2 and "begins with b'CM02', expected b'CM01'" in done.stderr


def test_fork(run, folder, capfd):
    assert run("dos-plugin", "doctor", "--config", "pretrain-contrast.py") == 0
    said = capfd.readouterr().out
    assert "in host 'our_lab'" in said and "one step on a made-up batch: loss" in said
    text = files()["our_lab.py"]
    assert "    PointModel,\n" in text
    (folder / "poor_lab.py").write_text(text.replace("    PointModel,\n", ""))
    expected = re.search(r"`(host 'our_lab' has no .+?)`", page_text())[1]
    with pytest.raises(ImportError, match=expected.replace("our_lab", "poor_lab")):
        host.load("poor_lab")
    for name in [m for m in sys.modules if m.partition(".")[0] == "poor_lab"]:
        del sys.modules[name]


@pytest.mark.skipif(
    find_pointcept() is None,
    reason="no Pointcept checkout at POINTCEPT_ROOT or ~/.cache/dos-plugin/Pointcept",
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="written for the CPU runner")
def test_renamed_copy_of_pointcept(folder, tmp_path):
    """`export DOS_HOST` alone; with the backbone of the page."""
    _, (program, setting) = command("export")
    assert program == "export"
    name, _, fork = setting.partition("=")
    for source, target in (("pointcept", fork), ("tools", "tools")):
        shutil.copytree(find_pointcept() / source, tmp_path / target)
    for file in tmp_path.rglob("*.py"):
        file.write_text(re.sub(r"\bpointcept\b", fork, file.read_text()))
    for place in (*files(), "configs", "data"):
        (tmp_path / place).symlink_to(folder / place)
    done = run_on_host(
        *("tools/train.py", "--config-file", "pretrain-cell-mlp.py"),
        *("--options", "num_worker=1", *SMALL),
        cwd=tmp_path,
        env={name: fork, "PYTHONPATH": os.fspath(tmp_path)},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert moved(checkpoint(f"{tmp_path}/exp/dos/cell-mlp"))


def page_text() -> str:
    return (ROOT / PAGE).read_text()


def test_no_block_is_left_out():
    """Each block is a file or commands, and the tests above run all of these but the scenes."""
    python = [text for language, text in blocks(PAGE) if language == "python"]
    assert python == list(files().values())
    assert {language for language, _ in blocks(PAGE)} == {"python", "sh"}
    assert [words[1] for _, words in typed()] == [
        *("scenes", "train", "features", "make_files.py", "train", "train", "train"),
        *("cm_reader.py", "DOS_HOST=our_fork", "doctor"),
    ]
