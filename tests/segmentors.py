"""Small segmentors of the active host, clouds for them, and a stand-in for the trainer."""

import logging
from types import SimpleNamespace

import torch

from dos_plugin.host import HOST

IN_CHANNELS = 4
CLASSES = 3
ENCODER = dict(
    in_channels=IN_CHANNELS,
    order=("z", "hilbert"),
    stride=(2, 2),
    enc_depths=(1, 1, 1),
    enc_channels=(8, 16, 24),
    enc_num_head=(1, 2, 3),
    enc_patch_size=(32, 32, 32),
    drop_path=0.3,
    shuffle_orders=True,
    enable_flash=False,
    enc_mode=True,
)
DECODER = dict(
    enc_mode=False,
    dec_depths=(1, 1),
    dec_channels=(8, 16),
    dec_num_head=(1, 2),
    dec_patch_size=(32, 32),
)
BACKBONES = {
    "PT-v3m1": dict(type="PT-v3m1", **ENCODER),
    "PT-v3m2": dict(type="PT-v3m2", **ENCODER),
    "PT-v3m1-dec": dict(type="PT-v3m1", **ENCODER | DECODER),
    "PT-v3m2-dec": dict(type="PT-v3m2", **ENCODER | DECODER),
    "SpUNet-v1m1": dict(
        type="SpUNet-v1m1",
        in_channels=IN_CHANNELS,
        num_classes=0,
        base_channels=8,
        channels=(8, 16, 16, 12),
        layers=(1, 1, 1, 1),
    ),
}
CHANNELS = {"PT-v3m1": 48, "PT-v3m2": 48, "PT-v3m1-dec": 8, "PT-v3m2-dec": 8, "SpUNet-v1m1": 12}
CRITERIA = [
    dict(type="CrossEntropyLoss", loss_weight=1.0, ignore_index=-1),
    dict(type="LovaszLoss", mode="multiclass", loss_weight=1.0, ignore_index=-1),
]


def config(backbone, freeze_backbone=True, **changes):
    model = dict(
        type="DOS-Segmentor-v1m1",
        backbone=dict(BACKBONES[backbone]),
        backbone_out_channels=CHANNELS[backbone],
        num_classes=CLASSES,
        criteria=CRITERIA,
        freeze_backbone=freeze_backbone,
    )
    return {**model, **changes}


def build(backbone, freeze_backbone=True, **changes):
    torch.manual_seed(0)
    return HOST.build_model(config(backbone, freeze_backbone, **changes))


def batch(seed=0, counts=(300, 200)):
    """Clouds with labels 0 to 2, and -1 for a tenth of the points."""
    gen = torch.Generator().manual_seed(seed)
    cells = [
        torch.unique(torch.randint(0, 24, (count, 3), generator=gen), dim=0) for count in counts
    ]
    grid_coord = torch.cat(cells)
    count = len(grid_coord)
    segment = torch.randint(0, CLASSES, (count,), generator=gen)
    segment[torch.rand(count, generator=gen) < 0.1] = -1
    return dict(
        coord=0.1 * (grid_coord + torch.rand(count, 3, generator=gen)),
        grid_coord=grid_coord,
        feat=torch.randn(count, IN_CHANNELS, generator=gen),
        segment=segment,
        offset=torch.tensor([len(c) for c in cells]).cumsum(0),
    )


def trainer(model, weight, **cfg):
    """What a hook sees of a trainer before training."""
    return SimpleNamespace(
        model=model,
        cfg=SimpleNamespace(weight=weight, resume=False, **cfg),
        logger=logging.getLogger("tests.segmentors"),
    )
