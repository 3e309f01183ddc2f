"""The real host's unmodified scripts and models on a CPU, through ``python -m dos_plugin.cpu``."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dos_plugin.cpu.checkout import find_pointcept, run_on_host

pytestmark = [
    pytest.mark.skipif(
        find_pointcept() is None,
        reason="no Pointcept checkout at POINTCEPT_ROOT or ~/.cache/dos-plugin/Pointcept",
    ),
    pytest.mark.skipif(torch.cuda.is_available(), reason="nothing is filled in beside CUDA"),
]

SMALL_PTV3 = [
    "model.backbone.enc_depths=1,1,1,1,1",
    "model.backbone.enc_channels=6,12,24,24,24",
    "model.backbone.enc_num_head=1,2,4,4,4",
    "model.backbone.enc_patch_size=64,64,64,64,64",
]
SMALL_SONATA = [
    "model.head_in_channels=72",
    "model.head_hidden_channels=16",
    "model.head_embed_channels=8",
    "model.head_num_prototypes=16",
    "data.train.datasets.0.split=train",
]
SHORT = ["batch_size=2", "epoch=2", "eval_epoch=2", "enable_wandb=False", "seed=0"]
ONE_VIEW = [[dict(type="RandomRotateTargetAngle", angle=[0], axis="z", center=[0, 0, 0], p=1)]]
STEP = re.compile(r"Train: \[(\d+)/2\]\[(\d+)/2\].* loss: ([\d.]+)")
RESULT = re.compile(r"Val result: mIoU/mAcc/allAcc ([\d.]+/[\d.]+/\d\.\d+)")


def run(*arguments):
    done = run_on_host(*arguments, env={"OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def scannet(tmp_path_factory) -> Path:
    """Four training and two validation rooms of 600 points in ScanNet's layout."""
    root = tmp_path_factory.mktemp("scannet")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 0)):
        for scene in range(count):
            folder = root / split / f"scene{scene:04d}_00"
            folder.mkdir(parents=True)
            segment = rng.integers(0, 3, 600)
            coord = rng.uniform(0, 3, (600, 3)).astype(np.float32)
            coord[np.arange(600), segment] = 0  # a wall, another wall, the floor
            np.save(folder / "coord.npy", coord)
            np.save(folder / "color.npy", rng.integers(0, 256, (600, 3)).astype(np.float32))
            np.save(folder / "normal.npy", np.eye(3, dtype=np.float32)[segment])
            np.save(folder / "segment20.npy", segment.astype(np.int16))
            np.save(folder / "instance.npy", segment.astype(np.int16))
    return root


@pytest.fixture(scope="module")
def pretrained(scannet, tmp_path_factory):
    """Sonata's own pretraining config, made small by options alone: two epochs of two steps."""
    folder = tmp_path_factory.mktemp("sonata")
    data = [f"data.train.datasets.0.data_root={scannet}", "hooks.5.save_freq=1", "num_worker=2"]
    done = run(
        "tools/train.py",
        *("--config-file", "configs/sonata/pretrain-sonata-v1m1-0-base.py"),
        *("--options", f"save_path={folder}", *data, *SHORT, *SMALL_PTV3, *SMALL_SONATA),
    )
    return folder, done


def test_sonata_pretrains_with_flash_attention_and_amp_in_its_config(pretrained):
    folder, done = pretrained
    steps = STEP.findall((folder / "train.log").read_text())
    assert [(epoch, step) for epoch, step, _ in steps] == [
        ("1", "1"),
        ("1", "2"),
        ("2", "1"),
        ("2", "2"),
    ]
    # Cross-entropies over 16 prototypes; of cosines over a temperature of 0.1 at most that.
    assert all(0 < float(loss) < 2 / 0.1 + np.log(16) for *_, loss in steps)
    assert next(folder.glob("events.out.tfevents.*")).stat().st_size > 0
    saved = torch.load(folder / "model/model_last.pth", weights_only=False)
    assert saved["epoch"] == 2
    student = saved["state_dict"]["student.backbone.enc.enc0.block0.attn.qkv.weight"]
    teacher = saved["state_dict"]["teacher.backbone.enc.enc0.block0.attn.qkv.weight"]
    assert 0 < (student - teacher).abs().max() < 0.1
    said = [line for line in done.stderr.splitlines() if line.startswith("dos-plugin cpu: ")]
    assert any("pointops" in line and "knn_query" in line for line in said)
    assert any("flash_attn" in line for line in said)


def test_sonata_resumes_where_it_stopped(pretrained, tmp_path):
    folder, _ = pretrained
    weight = folder / "model/epoch_1.pth"
    options = ["resume=True", f"weight={weight}", f"save_path={tmp_path}"]
    (tmp_path / "model").mkdir()
    run("tools/train.py", "--config-file", folder / "config.py", "--options", *options)
    log = (tmp_path / "train.log").read_text()
    assert "Resuming train at eval epoch: 1" in log
    assert [(epoch, step) for epoch, step, _ in STEP.findall(log)] == [("2", "1"), ("2", "2")]
    saved = torch.load(tmp_path / "model/model_last.pth", weights_only=False)
    assert saved["epoch"] == 2
    assert {int(state["step"]) for state in saved["optimizer"]["state"].values()} == {4}


def test_segmentation_trains_evaluates_and_is_tested(scannet, tmp_path):
    base = find_pointcept() / "configs/scannet/semseg-spunet-v1m1-0-base.py"
    config = tmp_path / "small.py"
    config.write_text(
        f'_base_ = ["{base}"]\n'
        "model = dict(backbone=dict(channels=(8,) * 8, layers=(1,) * 8))\n"
        f"data = dict(test=dict(test_cfg=dict(aug_transform={ONE_VIEW!r})))\n"
    )
    roots = [f"data.{split}.data_root={scannet}" for split in ("train", "val", "test")]
    folder = tmp_path / "exp"
    options = [f"save_path={folder}", "num_worker=1", *SHORT, *roots]
    run("tools/train.py", "--config-file", config, "--options", *options)
    log = (folder / "train.log").read_text()
    evaluator = RESULT.findall(log)
    assert len(STEP.findall(log)) == 4
    # Two evaluations, and the tester of the host's PreciseEvaluator at the end.
    assert len(evaluator) == 3
    assert all(0 <= float(value) <= 1 for line in evaluator for value in line.split("/"))

    again = tmp_path / "test"
    options = [f"weight={folder / 'model/model_best.pth'}", f"save_path={again}"]
    run("tools/test.py", "--config-file", folder / "config.py", "--options", *options)
    tested = RESULT.findall((again / "test.log").read_text())
    assert tested == evaluator[-1:]
    correct = [
        np.load(again / f"result/scene{scene:04d}_00_pred.npy").flatten()
        == np.load(scannet / f"val/scene{scene:04d}_00/segment20.npy")
        for scene in range(2)
    ]
    assert float(tested[0].split("/")[2]) == pytest.approx(np.mean(correct), abs=1e-4)


@pytest.fixture(scope="module")
def figures():
    """What cpu_model_checks.py measures on the host's models."""
    done = run(Path(__file__).with_name("cpu_model_checks.py"))
    return json.loads(done.stdout.splitlines()[-1])


# Sparse convolutions with a bias: one in each of the three blocks; SpUNet has none.
@pytest.mark.parametrize(("model", "biases"), [("PT-v3m1", 3), ("PT-v3m2", 3), ("SpUNet-v1m1", 0)])
def test_gradients_and_eval_mode_of_the_hosts_models(figures, model, biases):
    found = figures[model]
    assert found["tensors"] >= 70 and found["rows"] == 88
    assert found["unused"] == []
    assert found["finite_difference_error"] < 1e-4
    assert found["single_precision_error"] < 1e-4
    assert found["biases"] == biases
    assert found["eval_error"] < 1e-5


def test_attention_and_convolutions_equal_their_references(figures):
    # Attention in bfloat16 against float32: about three decimal digits.
    assert 1e-5 < figures["flash_error"] < 0.02
    assert figures["convolution_error"] < 1e-12
