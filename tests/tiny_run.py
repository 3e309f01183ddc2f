"""A run that was never trained: two labelled scans, a small config, a checkpoint of its model."""

from pathlib import Path

import numpy as np
import torch

from dos_plugin.host import active_host

GRID = 0.5

CONFIG = """
custom_imports = dict(imports=["dos_plugin.register"], allow_failed_imports=False)
weight = None
resume = False
evaluate = False
seed = 3
save_path = "{run}"
num_worker = 1
batch_size = 2
batch_size_val = None
batch_size_test = None
gradient_accumulation_steps = 1
mix_prob = 0
clip_grad = None
sync_bn = False
enable_amp = False
amp_dtype = "bfloat16"
empty_cache = False
empty_cache_per_epoch = False
find_unused_parameters = False
enable_wandb = False
param_dicts = None
epoch = 1
eval_epoch = 1
model = dict(
    type="DOS-v1m1",
    backbone=dict(
        type="PT-v3m2", in_channels=2, order=("z", "hilbert"), stride=(2, 2),
        enc_depths=(1, 1, 1), enc_channels=(8, 16, 24), enc_num_head=(1, 2, 3),
        enc_patch_size=(32, 32, 32), mlp_ratio=1, drop_path=0.3, shuffle_orders=True,
        enable_flash=False, enc_mode=True,
    ),
    backbone_out_channels=48, up_cast_level=2,
    head=dict(hidden_channels=16, out_channels=12), num_prototypes=20,
    sinkhorn=dict(type="ZipfSinkhorn", alpha=1.3, num_iters=3),
)
optimizer = dict(type="AdamW", lr=0.0, weight_decay=0.0)
scheduler = dict(type="OneCycleLR", max_lr=0.0, pct_start=0.3, div_factor=10.0)
transform = [
    dict(type="PointId"),
    dict(type="GridSample", grid_size={grid}, hash_type="fnv", mode="train"),
    dict(
        type="TwoViews",
        view_transform=[
            dict(type="RandomRotate", angle=[-1, 1], axis="z", center=[0, 0, 0], p=1.0),
            dict(type="RandomJitter", sigma=0.01, clip=0.05),
            dict(type="GridSample", grid_size={grid}, hash_type="fnv", mode="train",
                 return_grid_coord=True),
            dict(type="Height"),
        ],
    ),
    dict(type="BlockMask", block_size=1.0, mask_ratio=0.5),
    dict(type="ToTensor"),
    dict(type="Update", keys_dict=dict(grid_size={grid})),
    dict(
        type="Collect",
        keys=("view1_coord", "view1_grid_coord", "view1_point_id", "view1_visible",
              "view2_coord", "view2_grid_coord", "view2_point_id", "view2_visible", "grid_size"),
        offset_keys_dict=dict(view1_offset="view1_coord", view2_offset="view2_coord"),
        view1_feat_keys=("view1_strength", "view1_height"),
        view2_feat_keys=("view2_strength", "view2_height"),
    ),
]
data = dict(train=dict(type="DefaultDataset", split="train", data_root="{data}",
                       transform=transform, test_mode=False, loop=1))
hooks = [dict(type="CheckpointLoader"), dict(type="ModelHook"), dict(type="CheckpointSaver")]
train = dict(type="DefaultTrainer")
"""


def write_scans(root: Path, split: str, count: int, labels: bool = True) -> None:
    """Scans of flat ground (class 0), boxes (class 1) and poles (class 2)."""
    for index in range(count):
        rng = np.random.default_rng([index, len(split)])
        ground = np.column_stack([rng.uniform(-12, 12, (1500, 2)), rng.normal(0, 0.02, 1500)])
        box = rng.uniform([-2, -1, 0], [2, 1, 1.5], (400, 3)) + [*rng.uniform(-9, 9, 2), 0]
        pole = rng.uniform([-0.1, -0.1, 0], [0.1, 0.1, 4], (200, 3)) + [*rng.uniform(-9, 9, 2), 0]
        coord = np.concatenate([ground, box, pole]).astype(np.float32)
        label = np.repeat([0, 1, 2], [1500, 400, 200])
        folder = root / split / f"scan-{index}"
        folder.mkdir(parents=True)
        np.save(folder / "coord.npy", coord)
        strength = 0.2 * label[:, None] + rng.uniform(0, 0.5, (2100, 1))
        np.save(folder / "strength.npy", strength.astype(np.float32))
        if labels:
            np.save(folder / "segment.npy", label.astype(np.int32))


def write_config(run: Path, data: Path) -> Path:
    """The config of a run; returns its path."""
    run.mkdir(parents=True, exist_ok=True)
    path = run / "config.py"
    path.write_text(CONFIG.format(run=run, data=data, grid=GRID))
    return path


def write_run(run: Path, data: Path) -> Path:
    """Config and checkpoint of a model with random weights; returns the run's folder."""
    config = active_host().Config.fromfile(str(write_config(run, data)))
    torch.manual_seed(0)
    model = active_host().build_model(config.model)
    with torch.no_grad():  # a teacher of its own, to tell the branches apart
        for parameter in model.teacher["backbone"].parameters():
            parameter.mul_(1.1)
    (run / "model").mkdir()
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, run / "model" / "model_last.pth")
    return run


def pretrain(folder: Path) -> Path:
    """A DOS pretraining of a few steps by the embedded host, on coord and strength; its weights."""
    from dos_plugin.minihost import Trainer, load_config, setup_config

    write_scans(folder / "data", "train", 6, labels=False)
    path = write_config(folder / "run", folder / "data")
    text = path.read_text()
    changes = {
        "in_channels=2,": "in_channels=4,",
        '("view1_strength", "view1_height")': '("view1_coord", "view1_strength")',
        '("view2_strength", "view2_height")': '("view2_coord", "view2_strength")',
        "enc_patch_size=(32, 32, 32)": "enc_patch_size=(64, 64, 64)",
        "lr=0.0": "lr=0.01",
    }
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text)
    trainer = Trainer(setup_config(load_config(str(path), {})))
    assert trainer.cfg.scheduler.total_steps == 3
    trainer.train()
    return folder / "run" / "model" / "model_last.pth"
