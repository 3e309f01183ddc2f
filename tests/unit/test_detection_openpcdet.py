"""OpenPCDet's contracts, without OpenPCDet: voxels, backbone, options, messages."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from dos_plugin.detection.openpcdet import checkout
from dos_plugin.detection.openpcdet.backbone import DOSBackbone3D
from dos_plugin.detection.openpcdet.options import grid_of
from dos_plugin.detection.openpcdet.vfe import DOSVFE
from dos_plugin.shipped import configs_dir
from tests.small_backbones import SMALL, UNET

GRID = dict(
    grid_size=np.array([32, 32, 8]),
    voxel_size=[0.5, 0.5, 0.5],
    point_cloud_range=np.array([-8, -8, -2, 8, 8, 2], dtype=np.float32),
)
SCAN = torch.tensor(
    [
        [1.3, -0.2, 0.7, 51.0, 0.1],
        [1.4, -0.1, 0.6, 255.0, 0.2],  # same voxel
        [-7.9, 7.9, -1.9, 0.0, 0.3],
        [8.0, 0.0, 0.0, 7.0, 0.4],  # outside, on the face that the host keeps
    ]
)


def vfe(num_point_features=5, **options):
    return DOSVFE(dict(NAME="DOSVFE", **options), num_point_features, **GRID)


def batch(*scans):
    rows = [torch.nn.functional.pad(s, (1, 0), value=float(i)) for i, s in enumerate(scans)]
    return dict(points=torch.cat(rows), batch_size=len(scans), frame_id=np.array(["a", "b", "c"]))


def test_voxels():
    """Order of columns and axes, strength and scans, by hand; the scan in the middle is empty."""
    layer = vfe(FEATURES=["strength", "coord", "time"])
    got = layer(batch(SCAN, SCAN[:0], SCAN[2:3]))
    assert layer.get_output_feature_dim() == 5
    assert got["voxel_coords"].tolist() == [[0, 0, 31, 0], [0, 5, 15, 18], [2, 0, 31, 0]]
    expected = [[0.0, -7.9, 7.9, -1.9, 0.3], [0.2, 1.3, -0.2, 0.7, 0.1]]
    torch.testing.assert_close(got["voxel_features"][:2], torch.tensor(expected))
    mean = vfe(MERGE="mean")(batch(SCAN))["voxel_features"][1]
    torch.testing.assert_close(mean, torch.tensor([1.35, -0.15, 0.65, 0.6, 0.15]))
    alone = vfe(4, COLUMNS=["strength"], FEATURES=["coord"])
    assert alone.get_output_feature_dim() == 3
    assert alone(batch(SCAN[:, :4]))["voxel_features"].shape == (2, 3)


def test_voxels_errors():
    with pytest.raises(ValueError, match=r"strength_scale=1: strength of scan a .* 255, .* 0 to 1"):
        vfe(STRENGTH_SCALE=1.0)(batch(SCAN))
    dark = SCAN * torch.tensor([1, 1, 1, 1 / 255, 1])
    vfe()(batch(dark))  # so few points may all be dark
    with pytest.raises(ValueError, match=r"strength_scale=0.00392157: .* 1 for 0 to 1"):
        vfe()(batch(dark.repeat(300, 1)))
    with pytest.raises(ValueError, match="are 5 columns, used_feature_list has 4"):
        vfe(4)
    with pytest.raises(ValueError, match="features: ring not among coord"):
        vfe(FEATURES=["coord", "ring"])
    with pytest.raises(ValueError, match="DOSVFE: unknown option SCALE, expected some of COLUMNS"):
        vfe(SCALE=1)
    with pytest.raises(ValueError, match=r"VOXEL_SIZE: .* three times; got \[0.5, 0.5, 0.25\]"):
        DOSVFE({}, 5, [0.5, 0.5, 0.25], GRID["point_cloud_range"])


def test_grid_is_that_of_the_decimal_numbers():
    corners = np.array([0, -39.68, -3, 69.12, 39.68, 1], dtype=np.float32)
    grid = grid_of(corners, [0.04, 0.04, 0.04], 4)
    assert grid.point_cloud_range == (0, -39.68, -3, 69.12, 39.68, 1)
    assert grid.bev_shape == (25, 496, 432)


def backbone(config, **options):
    torch.manual_seed(0)
    options = dict(NAME="DOSBackbone3D", STRIDE=4, PROJ_CHANNELS=6, BACKBONE=config, **options)
    return DOSBackbone3D(options, config["in_channels"], **GRID)


@pytest.mark.parametrize("bins", [None, 1])
@pytest.mark.parametrize("kind", ["PT-v3m2", "SpUNet-v1m1"])
def test_backbone(kind, bins):
    """As the host calls it, with lists for tuples and coordinates as floats."""
    config = dict(SMALL, enc_mode=True) if kind == "PT-v3m2" else UNET
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}
    layer = backbone(dict(config, type=kind), Z_BINS=bins)
    cells = torch.unique(torch.randint(0, 8, (300, 3)) * torch.tensor([1, 4, 4]), dim=0)  # z, y, x
    scan = torch.arange(len(cells)) // 60 * 2  # every other one is empty
    size = int(scan[-1]) + 2
    coords = torch.cat([scan[:, None], cells], dim=1).float()
    feat = torch.randn(len(cells), 4)
    given = dict(voxel_features=feat, voxel_coords=coords, batch_size=size)
    got = layer(given)
    dense = got["encoded_spconv_tensor"].dense()
    assert dense.shape == (size, layer.num_point_features, bins or 2, 8, 8)
    assert got["encoded_spconv_tensor_stride"] == 4 and got is given
    lit = dense.detach().abs().sum(1) > 0
    assert not lit[1::2].any()
    seen = torch.zeros_like(lit)
    place = torch.cat([scan[:, None], cells // 4], dim=1)
    seen[place[:, 0], place[:, 1] * (bins != 1), place[:, 2], place[:, 3]] = True
    assert not (lit & ~seen).any() and lit.sum() > 0.9 * seen.sum()
    dense.square().sum().backward()
    assert [key for key, p in layer.named_parameters() if p.grad is None] == []


def test_backbone_errors(tmp_path):
    config = dict(UNET, type="SpUNet-v1m1")
    with pytest.raises(ValueError, match="unknown option STRIDES"):
        backbone(config, STRIDES=4)
    with pytest.raises(ValueError, match="BACKBONE_3D: STRIDE missing"):
        DOSBackbone3D(dict(BACKBONE=config), 4, **GRID)
    with pytest.raises(ValueError, match="in_channels: 4, the VFE gives 5 features a voxel"):
        DOSBackbone3D(dict(BACKBONE=config, STRIDE=4), 5, **GRID)
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        backbone(config, CHECKPOINT=str(tmp_path / "none.pth"))
    backbone(config, CHECKPOINT="")  # as --set MODEL.BACKBONE_3D.CHECKPOINT '' has it


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ModuleNotFoundError("No module named 'pcdet'", name="pcdet"),
            "tools as working directory",
        ),
        (ModuleNotFoundError("x", name="pcdet.version"), "python setup.py develop"),
        (ImportError("cannot import name 'iou3d_nms_cuda'", name="pcdet.ops.iou3d_nms"), "CUDA"),
        (ModuleNotFoundError("x", name="pcdet.ops.bev_pool.bev_pool_ext"), "iou3d_nms_cuda"),
        (ModuleNotFoundError("x", name="SharedArray"), "imports SharedArray; pip install it"),
    ],
)
def test_what_to_do_where_the_host_is_not(monkeypatch, error, said):
    def fail(name):
        raise error

    monkeypatch.setattr(checkout.importlib, "import_module", fail)
    with pytest.raises(ImportError, match=f"pcdet.models cannot be imported.*{said}"):
        checkout.import_host("pcdet.models")


def run(*arguments, cwd):
    command = [sys.executable, "-m", "dos_plugin.detection.openpcdet", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_command_line(tmp_path):
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0 and "train.py" in done.stdout and "--configs" in done.stdout
    done = run("--configs", cwd=tmp_path)
    folder = configs_dir() / "detection/openpcdet"
    assert done.stdout.strip() == str(folder) and len(list(folder.glob("*.yaml"))) >= 2
    done = run("train.py", cwd=tmp_path)
    assert done.returncode == 1 and "train.py: no such script" in done.stderr
    assert "Traceback" not in done.stderr
