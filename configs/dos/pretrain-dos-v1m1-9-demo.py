"""
DOS pretraining small enough for a laptop without GPU: a tiny PTv3 on synthetic LiDAR streets.

Coarse voxels, small views and many quick steps; x and y are not among the features, since a short
run learns position from them instead of semantics. The learning rate is low on purpose, features
are distilled at the voxels, and scenes are stretched by much: other ways learned less
(docs/evidence.md). For real training see the configs of the datasets.

The demo trains with two processes that share a batch:
    python -m dos_plugin.minihost --num-gpus 2 --config-file configs/dos/pretrain-dos-v1m1-9-demo.py
Probe and fine-tune: semseg-dos-v1m1-9a-demo-lin, semseg-dos-v1m1-9b-demo-dec and
semseg-dos-v1m1-9c-demo-ft take its checkpoint.
"""

custom_imports = dict(imports=["dos_plugin.register"], allow_failed_imports=False)

# misc custom setting
weight = None  # path to model weight
resume = False  # whether to resume training process
evaluate = False  # pretraining has no labels to evaluate with
seed = 0
save_path = "exp/dos/demo"
num_worker = 2  # in all processes
batch_size = 4  # total batch size in all gpus
batch_size_val = None
batch_size_test = None
gradient_accumulation_steps = 1
mix_prob = 0  # views cannot be mixed
clip_grad = 3.0
sync_bn = False
enable_amp = False
amp_dtype = "bfloat16"
empty_cache = False
empty_cache_per_epoch = False
find_unused_parameters = False
enable_wandb = False
wandb_project = "dos"
wandb_key = None
param_dicts = None

grid_size = 0.2  # metres

# model settings
model = dict(
    type="DOS-v1m1",
    # backbone - student & teacher
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
    teacher_custom=dict(drop_path=0.0),
    backbone_out_channels=416,  # 192 + 128 + 64 + 32
    up_cast_level=3,  # the voxels themselves
    head=dict(hidden_channels=256, out_channels=64),
    num_prototypes=256,
    sinkhorn=dict(type="ZipfSinkhorn", alpha=1.3, num_iters=3, scope="batch"),
    student_temp=0.1,
    teacher_temp_start=0.04,
    teacher_temp_base=0.07,
    teacher_temp_warmup_ratio=0.05,
    momentum_base=0.996,
    momentum_final=1.0,
)

# scheduler settings
epoch = 34
eval_epoch = 34
base_lr = 0.001
optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.04)
scheduler = dict(
    type="OneCycleLR",
    max_lr=base_lr,
    pct_start=0.05,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=1000.0,
)

# dataset settings
transform = [
    dict(type="PointId"),
    dict(type="GridSample", grid_size=grid_size, hash_type="fnv", mode="train"),
    dict(
        type="TwoViews",
        view_keys=("coord", "strength", "point_id"),
        view_scale=(0.6, 1.0),
        max_size=4000,
        view_transform=[
            dict(type="RandomRotate", angle=[-1, 1], axis="z", center=[0, 0, 0], p=1.0),
            dict(type="RandomScale", scale=[0.8, 1.2]),
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

data = dict(
    train=dict(
        type="DefaultDataset",
        split="train",
        data_root="data/dos-demo",
        transform=transform,
        test_mode=False,
        loop=1,
    ),
)

# hook
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
    # Scans of your own may have no labels: then there is no probe.
    dict(type="OnlineProbe", every=10, train_scans=6, val_scans=3, steps=100, required=False),
    dict(type="FeaturePicture", every=1),
]

train = dict(type="DefaultTrainer")
