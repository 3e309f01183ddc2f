"""
Fine-tuning of DOS for detection on nuScenes inside the host: CenterPoint on the encoder of PTv3.

Weights: pretrain-dos-v1m1-0-nuscenes; --options hooks.1.branch=teacher takes its teacher,
weight=None none. Data: the info files of the host, which hold the boxes; one sweep, as the host
reads it, so that velocities are a guess. No objects are pasted and no classes balanced: figures are
not those of the paper. Not run on nuScenes: memory, hours and figures are not known.
Run, from the root of the host, after `dos-plugin configs --install .` there:
    sh scripts/train.sh -g 4 -d dos -c objdet-dos-v1m1-0-nuscenes-ft -n NAME
The run leaves submission.json of the val split for nuscenes-devkit.
"""

_base_ = ["_base_/objdet-runtime.py"]

weight = "exp/dos/pretrain-dos-v1m1-0-nuscenes/model/model_last.pth"  # path to model weight
save_path = "exp/dos/objdet-dos-v1m1-0-nuscenes-ft"
num_worker = 16
batch_size = 16  # total batch size in all gpus
enable_amp = True

grid_size = 0.05  # metres, as in the pretraining
point_cloud_range = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]  # metres
names = [
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
]

# model settings: the encoder of the pretraining, and a detector on it
model = dict(
    type="DOS-CenterPoint-v1m1",
    num_classes=10,
    grid=dict(point_cloud_range=point_cloud_range, grid_size=grid_size, stride=8, z_bins=5),
    tasks=[[0], [1, 2], [3, 4], [5], [6, 7], [8, 9]],
    channels=64,
    neck_depth=4,
    nms="circle",
    nms_limit=[2.0, 3.5, 3.5, 3.5, 3.5, 1.0, 0.9, 0.9, 0.4, 0.4],  # metres
    backbone=dict(
        type="PT-v3m2",
        in_channels=4,  # coord, strength
        order=("z", "z-trans", "hilbert", "hilbert-trans"),
        stride=(2, 2, 2, 2),
        enc_depths=(3, 3, 3, 12, 3),
        enc_channels=(48, 96, 192, 384, 512),
        enc_num_head=(3, 6, 12, 24, 32),
        enc_patch_size=(1024, 1024, 1024, 1024, 1024),
        mlp_ratio=4,
        qkv_bias=True,
        qk_scale=None,
        attn_drop=0.0,
        proj_drop=0.0,
        drop_path=0.3,
        shuffle_orders=True,
        pre_norm=True,
        enable_rpe=False,
        enable_flash=True,
        upcast_attention=False,
        upcast_softmax=False,
        enc_mode=True,
    ),
)

# scheduler settings
epoch = 20
eval_epoch = 20
base_lr = 0.001
lr_decay = 0.9  # layer-wise lr decay, from the last block to the first
enc_depths = model["backbone"]["enc_depths"]
param_dicts = [
    dict(
        keyword=f"enc{e}.block{b}.",
        lr=base_lr * lr_decay ** (sum(enc_depths) - sum(enc_depths[:e]) - b - 1),
    )
    for e in range(len(enc_depths))
    for b in range(enc_depths[e])
]
del enc_depths
optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.01)
scheduler = dict(
    type="OneCycleLR",
    max_lr=[base_lr] + [group["lr"] for group in param_dicts],
    pct_start=0.1,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=100.0,
)

# dataset settings
data_root = "data/nuscenes"
voxels = dict(type="RangeVoxels", point_cloud_range=point_cloud_range, grid_size=grid_size)
collect = dict(
    type="Collect",
    keys=("coord", "grid_coord", "boxes", "box_labels", "token", "ego", "pose"),
    offset_keys_dict=dict(offset="coord", offset_box="boxes"),
    feat_keys=("coord", "strength"),
)

scored = dict(
    type="DOS-NuScenesBoxDataset",
    split="val",
    data_root=data_root,
    min_points=0,  # those of the radar count, too
    transform=[dict(voxels, shuffle=False), dict(type="ToTensor"), collect],
    test_mode=False,
)

data = dict(
    num_classes=10,
    ignore_index=-1,
    names=names,
    train=dict(
        type="DOS-NuScenesBoxDataset",
        split="train",
        data_root=data_root,
        min_points=1,
        transform=[
            dict(type="BoxRotate", angle=[-1 / 4, 1 / 4]),
            dict(type="BoxScale", scale=[0.9, 1.1]),
            dict(type="BoxFlip", p=0.5),
            dict(type="BoxTranslate", shift=((-0.5, 0.5), (-0.5, 0.5), (-0.2, 0.2))),
            dict(type="BoxRangeFilter", point_cloud_range=point_cloud_range),
            voxels,
            dict(type="ToTensor"),
            collect,
        ],
        test_mode=False,
        loop=1,
    ),
    val=scored,
    test=scored,
)

hooks = [
    dict(type="ExactResume", save_steps=1000),
    dict(type="DetectionLoader", branch="student"),  # or teacher
    dict(type="ModelHook"),
    dict(type="NonFiniteGuard"),
    dict(type="IterationTimer", warmup_iter=2),
    dict(type="InformationWriter"),
    dict(type="DetectionEvaluator", metric="NDS", submission=True),
    dict(type="CheckpointSaver", save_freq=None),
]

# tester: tools/test.py of the host
test = dict(type="DetectionTester", verbose=True, submission=True)
