"""
What all rows of the ablation share: the demo's tiny PTv3 and synthetic streets in one process, with
smaller views, so that a row takes five minutes of one CPU core.

Every other file here changes one thing of it. On other data: copy this folder, and let the copy of
this file name another pretraining config and its budget; the rows stay as they are.

    dos-plugin ablate --jobs 2
"""

_base_ = ["../pretrain-dos-v1m1-9-demo.py"]

model = dict(backbone_out_channels=384, up_cast_level=2)  # distilled at 0.4 m
num_worker = 1
batch_size = 2  # scenes a step
epoch = 16  # 80 steps each
eval_epoch = 16

grid_size = 0.2  # metres
transform = [
    dict(type="PointId"),
    dict(type="GridSample", grid_size=grid_size, hash_type="fnv", mode="train"),
    dict(
        type="TwoViews",
        view_keys=("coord", "strength", "point_id"),
        view_scale=(0.6, 1.0),
        max_size=1500,
        view_transform=[
            dict(type="RandomRotate", angle=[-1, 1], axis="z", center=[0, 0, 0], p=1.0),
            dict(type="RandomScale", scale=[0.95, 1.05]),
            dict(type="RandomFlip", p=0.5),
            dict(type="RandomJitter", sigma=0.01, clip=0.05),
            dict(
                type="GridSample",
                grid_size=grid_size,
                hash_type="fnv",
                mode="train",
                return_grid_coord=True,
            ),
            dict(type="Height"),
        ],
    ),
    dict(type="BlockMask", block_size=1.0, mask_ratio=0.7),
    dict(type="ToTensor"),
    dict(type="Update", keys_dict=dict(grid_size=grid_size)),
    dict(
        type="Collect",
        keys=(
            "view1_coord",
            "view1_grid_coord",
            "view1_point_id",
            "view1_visible",
            "view2_coord",
            "view2_grid_coord",
            "view2_point_id",
            "view2_visible",
            "grid_size",
            "name",
        ),
        offset_keys_dict=dict(view1_offset="view1_coord", view2_offset="view2_coord"),
        view1_feat_keys=("view1_strength", "view1_height"),
        view2_feat_keys=("view2_strength", "view2_height"),
    ),
]
data = dict(train=dict(transform=transform))

hooks = [
    dict(type="ExactResume"),
    dict(type="CheckpointLoader"),
    dict(type="ModelHook"),
    dict(type="NonFiniteGuard"),
    dict(type="StepWeightDecay", base_value=0.04, final_value=0.2),
    dict(type="IterationTimer", warmup_iter=2),
    dict(type="InformationWriter"),
    dict(type="CheckpointSaver", save_freq=None),
    dict(type="PrototypeMonitor"),
]
