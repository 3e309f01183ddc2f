"""
Detection on the demo's pretraining, small enough for a laptop without GPU: boxes of the synthetic
streets, with a small CenterPoint on the encoder.

On the embedded host, or in a Pointcept checkout (`python` alone where there is CUDA):
    python -m dos_plugin.minihost --config-file configs/dos/objdet-dos-v1m1-9a-demo.py
    python -m dos_plugin.cpu tools/train.py --config-file configs/dos/objdet-dos-v1m1-9a-demo.py
From random weights: --options weight=None. Same voxels and features as the pretraining's; the
scenes are those of `dos-plugin scenes data/dos-demo`.
"""

_base_ = ["_base_/objdet-runtime.py"]

weight = "exp/dos/demo/model/model_last.pth"  # path to model weight
save_path = "exp/dos/demo-objdet"
num_worker = 1
batch_size = 4  # total batch size in all gpus

grid_size = 0.2  # metres
point_cloud_range = [-32.0, -32.0, -4.8, 32.0, 32.0, 8.0]  # metres
names = ["car", "truck", "bicycle", "pedestrian", "cone"]

# model settings: the encoder of the pretraining, and a detector on it
model = dict(
    type="DOS-CenterPoint-v1m1",
    num_classes=5,
    grid=dict(point_cloud_range=point_cloud_range, grid_size=grid_size, stride=4, z_bins=4),
    channels=32,
    velocity=False,  # streets stand still
    nms="circle",
    nms_limit=[2.0, 3.0, 0.8, 0.4, 0.3],  # metres
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
)

# scheduler settings
epoch = 20
eval_epoch = 5
base_lr = 0.003
param_dicts = [dict(keyword="encoder.backbone.", lr=base_lr / 10)]
optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.01)
scheduler = dict(
    type="OneCycleLR",
    max_lr=[base_lr, base_lr / 10],
    pct_start=0.1,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=100.0,
)

# dataset settings
data_root = "data/dos-demo"
voxels = dict(type="RangeVoxels", point_cloud_range=point_cloud_range, grid_size=grid_size)
collect = dict(
    type="Collect",
    keys=("coord", "grid_coord", "boxes", "box_labels", "token", "ego", "pose"),
    offset_keys_dict=dict(offset="coord", offset_box="boxes"),
    feat_keys=("strength", "height"),
)

scored = dict(
    type="DOS-BoxDataset",
    split="val",
    data_root=data_root,
    min_points=5,  # nor expected
    transform=[dict(voxels, shuffle=False), dict(type="Height"), dict(type="ToTensor"), collect],
    test_mode=False,
)

data = dict(
    num_classes=5,
    ignore_index=-1,
    names=names,
    train=dict(
        type="DOS-BoxDataset",
        split="train",
        data_root=data_root,
        min_points=5,  # boxes with fewer are not learned
        transform=[
            dict(type="BoxRotate", angle=[-1, 1]),
            dict(type="BoxScale", scale=[0.95, 1.05]),
            dict(type="BoxFlip", p=0.5),
            dict(type="BoxRangeFilter", point_cloud_range=point_cloud_range),
            voxels,
            dict(type="Height"),
            dict(type="ToTensor"),
            collect,
        ],
        test_mode=False,
        loop=1,
    ),
    val=scored,
    test=scored,
)
ranges = dict(car=30.0, truck=30.0, bicycle=30.0, pedestrian=30.0, cone=30.0)  # metres

hooks = [
    dict(type="ExactResume"),
    dict(type="DetectionLoader", branch="student"),  # or teacher
    dict(type="ModelHook"),
    dict(type="NonFiniteGuard"),
    dict(type="IterationTimer", warmup_iter=2),
    dict(type="InformationWriter"),
    dict(
        type="DetectionEvaluator",
        metric="mAP",
        ranges=ranges,
    ),
    dict(type="CheckpointSaver", save_freq=None),
]

# tester: tools/test.py of the host
test = dict(type="DetectionTester", verbose=True, ranges=ranges)
