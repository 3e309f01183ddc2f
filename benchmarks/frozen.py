"""What "frozen" leaves moving: the host's segmentor with freeze_backbone=True, and ours.

Both hold the same weights (random, made from the seed), in training mode, with the drop path of 0.3
that the host's probing configs have. Two passes over the same synthetic street: relative difference
of the logits, norm(a - b) / norm(a). Then steps of AdamW: how many tensors of the backbone,
parameters and buffers, are not bitwise what they were.

    PYTHONPATH=<checkout of Pointcept> DOS_HOST=pointcept \
        python -m dos_plugin.cpu benchmarks/frozen.py --steps 50
"""

import argparse

import numpy as np
import torch

import dos_plugin.register  # noqa: F401
from dos_plugin.host import HOST
from dos_plugin.scenes.sensor import Sensor, generate_scan

GRID = 0.4  # metres
ENCODER = dict(
    in_channels=4,
    order=("z", "z-trans", "hilbert", "hilbert-trans"),
    stride=(2, 2, 2, 2),
    enc_depths=(1, 1, 1, 2, 1),
    enc_channels=(32, 64, 96, 128, 160),
    enc_num_head=(2, 4, 6, 8, 10),
    enc_patch_size=(128, 128, 128, 128, 128),
    drop_path=0.3,
    shuffle_orders=True,
    enable_flash=False,
    enc_mode=True,
)
BACKBONES = {
    "PT-v3m1": (dict(type="PT-v3m1", **ENCODER), 480),
    "PT-v3m2": (dict(type="PT-v3m2", **ENCODER), 480),
    "SpUNet-v1m1": (dict(type="SpUNet-v1m1", in_channels=4, num_classes=0, layers=(1,) * 8), 96),
}
SEGMENTORS = ("DefaultSegmentorV2", "DOS-Segmentor-v1m1")


def scan(seed: int) -> dict[str, torch.Tensor]:
    """A synthetic street, one point in each voxel, with strength and labels."""
    street = generate_scan(seed, Sensor(columns=360))
    voxels = dict(type="GridSample", grid_size=GRID, mode="train", return_grid_coord=True)
    data = HOST.TRANSFORMS.build(voxels)(street)
    coord, strength = (torch.from_numpy(data[key]).float() for key in ("coord", "strength"))
    return dict(
        coord=coord,
        grid_coord=torch.from_numpy(data["grid_coord"]).long(),
        feat=torch.cat([coord, strength], dim=1),
        segment=torch.from_numpy(data["segment"]).long(),
        offset=torch.tensor([len(coord)]),
    )


def logits(model: torch.nn.Module, batch: dict) -> torch.Tensor:
    """Of a pass in training mode, where segmentors return nothing but the loss."""
    found = []
    head = model.get_submodule("seg_head")
    handle = head.register_forward_hook(lambda *args: found.append(args[2].detach()))
    model.train()
    model(dict(batch))
    handle.remove()
    return found[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    np.random.seed(args.seed)
    batches = [scan(args.seed + number) for number in range(2)]
    print(f"host {HOST.name}, {args.steps} steps, {len(batches[0]['coord'])} voxels")
    print("| backbone | segmentor | two passes differ by | tensors changed |")
    print("| --- | --- | --- | --- |")
    for name, (backbone, channels) in BACKBONES.items():
        for kind in SEGMENTORS:
            torch.manual_seed(args.seed)
            model = HOST.build_model(
                dict(
                    type=kind,
                    num_classes=16,
                    backbone_out_channels=channels,
                    backbone=backbone,
                    criteria=[dict(type="CrossEntropyLoss", ignore_index=-1)],
                    freeze_backbone=True,
                )
            )
            first, second = (logits(model, batches[0]) for _ in range(2))
            difference = (first - second).norm() / first.norm()
            before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.002, weight_decay=0.005)
            for step in range(args.steps):
                model.train()
                optimizer.zero_grad()
                model(dict(batches[step % 2]))["loss"].backward()
                optimizer.step()
            after = model.backbone.state_dict()
            changed = sum(not torch.equal(after[key], value) for key, value in before.items())
            print(f"| {name} | {kind} | {difference:.1%} | {changed} of {len(before)} |")


if __name__ == "__main__":
    main()
