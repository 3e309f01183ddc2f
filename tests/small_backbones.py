"""Small backbones of the embedded host, and clouds for them."""

import torch

from dos_plugin.minihost.backbones import BACKBONES

SMALL = dict(
    in_channels=4,
    order=("z", "hilbert"),
    stride=(2, 2),
    enc_depths=(1, 2, 1),
    enc_channels=(16, 24, 32),
    enc_num_head=(2, 3, 4),
    enc_patch_size=(32, 32, 32),
    dec_depths=(1, 1),
    dec_channels=(16, 24),
    dec_num_head=(2, 3),
    dec_patch_size=(32, 32),
    enable_flash=False,
)
UNET = dict(in_channels=4, num_classes=0, base_channels=8, channels=(8, 16, 16, 12))
UNET["layers"] = (1, 1, 1, 1)
PTV3 = ("PT-v3m1", "PT-v3m2")


def build(kind, **changes):
    torch.manual_seed(0)
    return BACKBONES[kind](**{**(SMALL if kind in PTV3 else UNET), **changes})


def cloud(n, seed, extent=(24, 20, 6)):
    gen = torch.Generator().manual_seed(seed)
    cells = torch.rand(4 * n, 3, generator=gen) * torch.tensor(extent, dtype=torch.float)
    cells = torch.unique(cells.long(), dim=0)
    cells = cells[torch.randperm(len(cells), generator=gen)[:n]]
    coord = 0.3 * (cells + torch.rand(cells.shape, generator=gen))
    return dict(feat=torch.randn(len(cells), 4, generator=gen), coord=coord, grid_coord=cells)


def collate(*clouds):
    batch = {key: torch.cat([c[key] for c in clouds]) for key in clouds[0]}
    batch["offset"] = torch.tensor([len(c["feat"]) for c in clouds]).cumsum(0)
    return batch
