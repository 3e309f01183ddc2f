"""
Linear probe of the demo's pretraining, small enough for a laptop without GPU. Pointcept only.

One linear layer on the frozen features of the student. Same backbone, voxels and features as
pretrain-dos-v1m1-9-demo.py; the scenes are those of `dos-plugin scenes data/dos-demo`.
Run in a Pointcept checkout, `python` instead of `python -m dos_plugin.cpu` where there is CUDA:
    python -m dos_plugin.cpu tools/train.py --config-file configs/dos/semseg-dos-v1m1-9a-demo-lin.py
"""

custom_imports = dict(imports=["dos_plugin.register"], allow_failed_imports=False)

# misc custom setting
weight = "exp/dos/demo/model/model_last.pth"  # path to model weight
resume = False  # whether to resume training process
evaluate = True
test_only = False
seed = 0
save_path = "exp/dos/demo-lin"
num_worker = 1
batch_size = 4  # total batch size in all gpus
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

grid_size = 0.2  # metres
num_classes = 15
ignore_index = -1

# model settings
model = dict(
    type="DefaultSegmentorV2",
    num_classes=num_classes,
    backbone_out_channels=416,  # 32 + 64 + 128 + 192: the host stacks all levels
    backbone=dict(
        type="PT-v3m2",
        in_channels=2,  # strength, height
        order=("z", "z-trans", "hilbert", "hilbert-trans"),
        stride=(2, 2, 2),
        enc_depths=(1, 1, 1, 1),
        enc_channels=(32, 64, 128, 192),
        enc_num_head=(2, 4, 8, 12),
        enc_patch_size=(128, 128, 128, 128),
        mlp_ratio=2,
        qkv_bias=True,
        qk_scale=None,
        attn_drop=0.0,
        proj_drop=0.0,
        drop_path=0.0,
        shuffle_orders=True,
        pre_norm=True,
        enable_rpe=False,
        enable_flash=False,
        upcast_attention=False,
        upcast_softmax=False,
        enc_mode=True,
    ),
    criteria=[
        dict(type="CrossEntropyLoss", loss_weight=1.0, ignore_index=ignore_index),
        dict(type="LovaszLoss", mode="multiclass", loss_weight=1.0, ignore_index=ignore_index),
    ],
    freeze_backbone=True,
)

# scheduler settings
epoch = 10
eval_epoch = 10
optimizer = dict(type="AdamW", lr=0.01, weight_decay=0.0)
scheduler = dict(
    type="OneCycleLR",
    max_lr=0.01,
    pct_start=0.05,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=100.0,
)

# dataset settings
dataset_type = "DefaultDataset"
data_root = "data/dos-demo"
feat_keys = ("strength", "height")

data = dict(
    num_classes=num_classes,
    ignore_index=ignore_index,
    names=[
        "road",
        "sidewalk",
        "terrain",
        "building",
        "fence",
        "vegetation",
        "trunk",
        "pole",
        "traffic sign",
        "car",
        "truck",
        "bicycle",
        "pedestrian",
        "cone",
        "clutter",
    ],
    train=dict(
        type=dataset_type,
        split="train",
        data_root=data_root,
        transform=[
            dict(type="RandomRotate", angle=[-1, 1], axis="z", center=[0, 0, 0], p=1.0),
            dict(type="RandomScale", scale=[0.95, 1.05]),
            dict(type="RandomFlip", p=0.5),
            dict(
                type="GridSample",
                grid_size=grid_size,
                hash_type="fnv",
                mode="train",
                return_grid_coord=True,
            ),
            dict(type="Height"),
            dict(type="ToTensor"),
            dict(type="Collect", keys=("coord", "grid_coord", "segment"), feat_keys=feat_keys),
        ],
        test_mode=False,
        ignore_index=ignore_index,
        loop=1,
    ),
    val=dict(
        type=dataset_type,
        split="val",
        data_root=data_root,
        transform=[
            dict(
                type="GridSample",
                grid_size=grid_size,
                hash_type="fnv",
                mode="train",
                return_grid_coord=True,
            ),
            dict(type="Height"),
            dict(type="ToTensor"),
            dict(type="Collect", keys=("coord", "grid_coord", "segment"), feat_keys=feat_keys),
        ],
        test_mode=False,
        ignore_index=ignore_index,
    ),
    test=dict(
        type=dataset_type,
        split="val",
        data_root=data_root,
        transform=[
            dict(type="Copy", keys_dict=dict(segment="origin_segment")),
            dict(
                type="GridSample",
                grid_size=grid_size / 2,
                hash_type="fnv",
                mode="train",
                return_inverse=True,
            ),
            dict(type="Height"),
        ],
        test_mode=True,
        test_cfg=dict(
            voxelize=dict(
                type="GridSample",
                grid_size=grid_size,
                hash_type="fnv",
                mode="test",
                return_grid_coord=True,
            ),
            crop=None,
            post_transform=[
                dict(type="ToTensor"),
                dict(type="Collect", keys=("coord", "grid_coord", "index"), feat_keys=feat_keys),
            ],
            aug_transform=[
                [dict(type="RandomRotateTargetAngle", angle=[0], axis="z", center=[0, 0, 0], p=1)]
            ],
        ),
        ignore_index=ignore_index,
    ),
)

# hook
hooks = [
    dict(
        type="CheckpointLoader",
        keywords="module.student.backbone",
        replacement="module.backbone",
    ),
    dict(type="ModelHook"),
    dict(type="IterationTimer", warmup_iter=2),
    dict(type="InformationWriter"),
    dict(type="SemSegEvaluator"),
    dict(type="CheckpointSaver", save_freq=None),
]

# trainer and tester
train = dict(type="DefaultTrainer")
test = dict(type="SemSegTester", verbose=True)
