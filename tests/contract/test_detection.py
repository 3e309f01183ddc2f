"""The middle encoder on the active host's own backbones."""

import pytest
import torch

from dos_plugin.detection.encoder import BEVEncoder, build_backbone
from dos_plugin.detection.grid import DetectionGrid
from dos_plugin.detection.load import load_pretrained
from dos_plugin.detection.rates import layer_scales
from dos_plugin.detection.tap import tap
from tests.small_backbones import SMALL, UNET

GRID = DetectionGrid((-2.4, -2.0, -1.6, 2.4, 2.0, 1.6), 0.1, 4, z_bins=2)
BACKBONES = {
    "PT-v3m1": dict(SMALL, type="PT-v3m1", enc_mode=True),
    "PT-v3m2": dict(SMALL, type="PT-v3m2", enc_mode=True),
    "PT-v3m2-decoder": dict(SMALL, type="PT-v3m2", dec_patch_size=(32, 32)),
    "SpUNet-v1m1": dict(UNET, type="SpUNet-v1m1"),
}


def voxels(counts=(260, 140)):
    generator = torch.Generator().manual_seed(0)
    cells, batch = [], []
    for number, n in enumerate(counts):
        drawn = torch.rand(2 * n, 3, generator=generator) * torch.tensor(GRID.shape)
        cells.append(torch.unique(drawn.long(), dim=0)[:n])
        batch.append(torch.full((len(cells[-1]),), number))
    cells, batch = torch.cat(cells), torch.cat(batch)
    return torch.randn(len(cells), 4, generator=generator), cells, batch


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_rows_of_a_stage_are_its_cells(name, stride):
    torch.manual_seed(0)
    backbone = build_backbone(BACKBONES[name]).train()
    feat, cells, batch = voxels()
    offset = batch.bincount().cumsum(0)
    point = dict(feat=feat, coord=GRID.centres(cells), grid_coord=cells, offset=offset)
    stage = tap(backbone(point), cells, batch, stride, (2, 2))
    found = list(zip(stage.batch.tolist(), map(tuple, stage.cells.tolist())))
    coarse = torch.cat([batch[:, None], cells // stride], dim=1).unique(dim=0).tolist()
    assert sorted((b, *cell) for b, cell in found) == [tuple(row) for row in coarse]


@pytest.mark.parametrize("name", BACKBONES)
def test_encoder(name):
    torch.manual_seed(0)
    encoder = BEVEncoder(BACKBONES[name], GRID, channels=6)
    data = voxels()
    out = encoder(*data, 3)
    assert out.shape == (3, 12, 10, 12) and not out[2].any()
    out.square().sum().backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None] == []
    encoder.eval()
    with torch.no_grad():
        assert torch.equal(encoder(*data, 3), encoder(*data, 3))
    names = [key for key, _ in encoder.backbone.named_parameters()]
    assert set(layer_scales(names, 0.9)) == set(names)


@pytest.mark.parametrize("name", BACKBONES)
def test_weights_come_back(name, tmp_path):
    torch.manual_seed(0)
    trained = build_backbone(BACKBONES[name])
    state = {f"student.backbone.{key}": value for key, value in trained.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / "last.pth")
    torch.manual_seed(1)
    wider = build_backbone(dict(BACKBONES[name], in_channels=5))
    report = load_pretrained(wider, tmp_path / "last.pth", added_channels=1)
    assert len(report.matched) == len(state) and report.inflated is not None
    for key, value in wider.state_dict().items():
        if key == report.inflated:
            assert not value[..., 4].any()
            value = value[..., :4]
        assert torch.equal(value, trained.state_dict()[key])
