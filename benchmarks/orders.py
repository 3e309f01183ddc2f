"""How far two passes over a scan are apart: PTv3 of the host shuffles its curves in eval mode, too.

The backbone of a checkpoint, built by the active host from the config that `dos-plugin export --to
pointcept` writes, in eval mode, twice over the same voxels of a scan with other random numbers.
Cosine of a voxel's two features, of which the mean over all voxels is subtracted: mean, and that of
the worst hundredth; and how many voxels have bitwise the same ones.

    python benchmarks/orders.py exp/dos/demo scan.bin
    PYTHONPATH=<checkout of Pointcept> DOS_HOST=pointcept \
        python -m dos_plugin.cpu benchmarks/orders.py exp/dos/demo scan.bin
"""

import argparse

import torch
from torch import nn

import dos_plugin
import dos_plugin.register
from dos_plugin.commands.export import export
from dos_plugin.host import HOST
from dos_plugin.models.backbone import keep_orders, runnable
from dos_plugin.probing.scans import extract
from dos_plugin.runs.run import open_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("checkpoint", help="a checkpoint, or a run's folder")
    parser.add_argument("scan", help="a file that dos-plugin ingest reads")
    args = parser.parse_args()
    file = export(open_run(args.checkpoint), "pointcept")
    encoder = dos_plugin.load(args.checkpoint, device="cpu")
    voxels = encoder.voxels(encoder.read(args.scan))
    state = {key.removeprefix("backbone."): value for key, value in file["state_dict"].items()}
    print(f"host {HOST.name}, {file['config']['type']}, {len(voxels.coord)} voxels of {args.scan}")
    print("| orders | cosine, mean | cosine, worst 1 % | bitwise the same |")
    print("| --- | --- | --- | --- |")
    for words, shuffled, kept in (
        ("shuffle_orders=True", True, False),
        ("as exported: shuffle_orders=False", False, False),
        ("kept at the poolings, too", False, True),
    ):
        config = dict(file["config"])
        if "shuffle_orders" in config:
            config["shuffle_orders"] = shuffled
        backbone: nn.Module = HOST.build_model(runnable(config, "cpu")).eval()
        backbone.load_state_dict(state)
        if kept:
            keep_orders(backbone)
        passes = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            passes.append(extract(backbone, voxels))
        same = (passes[0] == passes[1]).all(dim=1).float().mean()
        centre = passes[0].double().mean(dim=0)
        first, second = (feat.double() - centre for feat in passes)
        cosine = torch.cosine_similarity(first, second, dim=1)
        worst = cosine.quantile(0.01)
        print(f"| {words} | {cosine.mean():.4f} | {worst:.4f} | {same:.0%} |")


if __name__ == "__main__":
    main()
