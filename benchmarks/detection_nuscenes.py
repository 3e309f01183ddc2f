"""A detector on real keyframes of nuScenes: PTv3 from DOS, from random weights, the stock encoder.

The host's CenterPoint with a narrower 2D network, trained on the keyframes of one scene by
MMEngine's Runner and scored on another scene by the official devkit, at equal steps. In the
environment of ``make detection-env``:

    .venv-detection/bin/python benchmarks/detection_nuscenes.py --weight exp/CHECKPOINT.pth

The checkpoint is a pretraining as the demo's (its config lies beside it). A run that is finished is
kept: the same command goes on. Two scenes are two places: look at the seeds, not at the means.
"""

import argparse
import json
import math
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from tests import mmcv_operators  # noqa: E402

mmcv_operators.install()

from mmdet3d.registry import MODELS  # noqa: E402
from mmdet3d.utils import register_all_modules  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from dos_plugin.cpu import spconv_fixes  # noqa: E402
from dos_plugin.models.inputs import feature_keys, grid_size  # noqa: E402
from dos_plugin.runs.config import config_beside, read_literals  # noqa: E402
from dos_plugin.shipped import configs_dir  # noqa: E402
from keyframes import CLASSES, VERSION, write_root  # noqa: E402

ARMS = ("DOS", "random weights", "stock encoder")
HEIGHT = (-5.0, 3.0)  # metres, of the sensor's frame
CELL = 0.8  # metres, edge of a cell of the map, of all arms
# Classes of a head; boxes of a head whose centres are closer than the root of so many metres are
# one. Two heads for the host's six, which would take most of the time.
TASKS = (
    (4.0, ("car", "truck", "construction_vehicle", "bus", "trailer")),
    (0.175, ("barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone")),
)
PREFIX = "NuScenes metric/pred_instances_3d_NuScenes/"


def shipped(folder: Path, size: float, reach: float) -> Config:
    """The shipped config for one sweep, with the grid of this benchmark."""
    corners = [-reach, -reach, HEIGHT[0], reach, reach, HEIGHT[1]]
    shutil.copytree(configs_dir() / "detection", folder, dirs_exist_ok=True)
    base = folder / "_base_nuscenes.py"
    text = base.read_text()
    for old, new in {
        "grid_size = 0.05 ": f"grid_size = {size} ",
        "[-54, -54, -5.0, 54, 54, 3.0]": str(corners),
        "bev_stride = 8 ": f"bev_stride = {round(CELL / size)} ",
    }.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    base.write_text(text)
    return Config.fromfile(folder / "objdet-dos-v1m1-2a-nuscenes-frozen.py")


def make_config(arm: str, seed: int, args: argparse.Namespace) -> Config:
    """The config of a run."""
    pretraining = read_literals(config_beside(args.weight) or args.config)
    transform = pretraining["data"]["train"]["transform"]
    size = grid_size(transform)
    work = args.out / arm.replace(" ", "-") / f"seed-{seed}"
    config = shipped(work / "configs", size, args.range)
    model = config.model
    keys = feature_keys(transform)
    if arm == "stock encoder":
        keys = ("coord", "strength")
        cells = round(2 * args.range / size)
        halvings = round(math.log2(CELL / size))  # three in the stock one, at 0.1 m
        channels = [(16, 16, 32), (32, 32, 64), (64, 64, 128), (128, 128)]
        paddings = [(0, 0, 1), (0, 0, 1), (0, 0, [0, 1, 1]), (0, 0)]
        channels[halvings:] = [channels[halvings][:2]]
        model.pts_middle_encoder = dict(
            type="SparseEncoder",
            in_channels=4,
            sparse_shape=[round((HEIGHT[1] - HEIGHT[0]) / size) + 1, cells, cells],
            output_channels=64,
            order=("conv", "norm", "act"),
            encoder_channels=channels,
            encoder_paddings=[*paddings[: halvings - 1], *paddings[-2:]],
            block_type="basicblock",
        )
        with torch.no_grad():  # how many height bins are left depends on the grid
            encoder = MODELS.build(model.pts_middle_encoder).eval()
            found = encoder(torch.zeros(1, 4), torch.zeros(1, 4, dtype=torch.int32), 1)
        model.pts_backbone.in_channels = found.shape[1]
    else:
        encoder = model.pts_middle_encoder
        encoder.update(freeze=False, amp=None, features=list(keys))
        encoder.checkpoint = str(args.weight) if arm == "DOS" else None
        encoder.backbone = dict(pretraining["model"]["backbone"])
        encoder.proj_channels = 32
        model.pts_backbone.in_channels = encoder.proj_channels * encoder.z_bins
    width = sum({"coord": 3}.get(key, 1) for key in keys)
    model.data_preprocessor.features = list(keys)
    model.pts_voxel_encoder.num_features = width
    model.pts_backbone.update(layer_nums=[2, 2], out_channels=[32, 64])
    model.pts_neck.update(in_channels=[32, 64], out_channels=[32, 32])
    model.pts_bbox_head.update(in_channels=64, share_conv_channel=32)
    model.pts_bbox_head.separate_head.head_conv = 32
    model.pts_bbox_head.tasks = [dict(num_class=len(n), class_names=list(n)) for _, n in TASKS]
    model.test_cfg.pts.min_radius = [radius for radius, _ in TASKS]
    model.pts_bbox_head.bbox_coder.score_threshold = 0.02
    model.test_cfg.pts.nms_type = "circle"  # the only one that is not compiled

    config.train_dataloader.update(batch_size=args.batch_size)
    config.train_dataloader.dataset = config.train_dataloader.dataset.dataset  # no balanced classes
    config.train_dataloader.dataset.ann_file = "nuscenes_infos_train.pkl"
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(args.out / "data"))
        loader.dataset.metainfo.update(version=VERSION)
    for evaluator in (config.val_evaluator, config.test_evaluator):
        evaluator.update(
            data_root=str(args.out / "data"),
            ann_file=str(args.out / "data" / "nuscenes_infos_val.pkl"),
        )
    config.train_cfg = dict(by_epoch=True, max_epochs=args.epochs, val_interval=args.epochs + 1)
    steps = args.epochs * -(-40 // args.batch_size)
    config.optim_wrapper = dict(
        type="OptimWrapper",
        optimizer=dict(type="AdamW", lr=args.lr, weight_decay=0.01),
        clip_grad=dict(max_norm=35, norm_type=2),
    )
    config.param_scheduler = [
        dict(type="OneCycleLR", eta_max=args.lr, total_steps=steps, pct_start=0.2, by_epoch=False)
    ]
    config.default_hooks = dict(logger=dict(type="LoggerHook", interval=5))
    config.default_hooks.checkpoint = dict(type="CheckpointHook", interval=-1, save_last=False)
    config.visualizer = dict(type="Det3DLocalVisualizer", vis_backends=[])
    config.work_dir = str(work)
    config.randomness = dict(seed=seed)
    config.experiment_name = f"{work.parent.name}-{seed}"
    return config


def run(arm: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train and score, or take the result of an earlier call."""
    file = args.out / arm.replace(" ", "-") / f"seed-{seed}" / "result.json"
    settings = dict(epochs=args.epochs, lr=args.lr, batch_size=args.batch_size)
    settings |= dict(
        range=args.range, weight=str(args.weight), train=args.train_scene, val=args.val_scene
    )
    if file.is_file() and (found := json.loads(file.read_text()))["settings"] == settings:
        return found
    runner = Runner.from_cfg(make_config(arm, seed, args))
    # The host's own start of the heat maps, which its init_weights does not reach: so short a
    # training would spend itself on it.
    for task in runner.model.pts_bbox_head.task_heads:
        torch.nn.init.constant_(task.heatmap[-1].bias, -2.19)
    started = time.process_time()
    runner.train()
    seconds = time.process_time() - started
    scores = runner.val_loop.run()
    thresholds = ("0.5", "1.0", "2.0", "4.0")
    by_class = {
        name: 100 * statistics.mean(scores[f"{PREFIX}{name}_AP_dist_{d}"] for d in thresholds)
        for name in CLASSES
    }
    result = dict(settings=settings, seconds=seconds, nds=100 * scores[f"{PREFIX}NDS"], ap=by_class)
    file.write_text(json.dumps(result, indent=1) + "\n")
    return result


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    real = Path("~/.cache/dos-plugin/real/nuscenes").expanduser()
    parser.add_argument("--real", type=Path, default=real, help="scans and tables of nuScenes")
    parser.add_argument("--weight", type=Path, required=True, help="checkpoint of a pretraining")
    parser.add_argument("--config", type=Path, help="its config, if it is not in its folder")
    parser.add_argument("--train-scene", default="scene-0523", help="to train on")
    parser.add_argument("--val-scene", default="scene-0916", help="to score on")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--range", type=float, default=51.2, help="metres to each side")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--out", type=Path, default=Path("exp/dos/detection-nuscenes"))
    parser.add_argument("--json", metavar="PATH", help="also write the results")
    args = parser.parse_args()
    register_all_modules()
    spconv_fixes.apply()
    args.out = args.out.absolute()
    write_root(args.real, args.out / "data", args.val_scene, args.train_scene)
    results: dict[str, dict[int, Any]] = {arm: {} for arm in args.arms}
    for seed in args.seeds:
        for arm in args.arms:
            results[arm][seed] = run(arm, seed, args)
            print(arm, seed, results[arm][seed], flush=True)
    names = [
        name for name in CLASSES if any(r["ap"][name] for a in results.values() for r in a.values())
    ]
    print("| | mAP of all ten classes | NDS | " + " | ".join(names) + " | s of CPU |")
    print("| --- " * (4 + len(names)) + "|")
    for arm, found in results.items():
        mean_ap = [statistics.mean(r["ap"].values()) for r in found.values()]
        cells = [", ".join(f"{v:.1f}" for v in mean_ap)]
        cells.append(", ".join(f"{r['nds']:.1f}" for r in found.values()))
        cells += [", ".join(f"{r['ap'][n]:.1f}" for r in found.values()) for n in names]
        cells.append(", ".join(f"{r['seconds']:.0f}" for r in found.values()))
        print(f"| {arm} | {' | '.join(cells)} |")
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
