"""Segmentation of the demo's synthetic streets, small enough for a laptop without GPU.

Same voxels and features as pretrain-dos-v1m1-9-demo.py; the scenes are those of
`dos-plugin scenes data/dos-demo`.
"""

_base_ = ["semseg-runtime.py"]

weight = "exp/dos/demo/model/model_last.pth"  # path to model weight
num_worker = 1
batch_size = 4  # total batch size in all gpus
mix_prob = 0
clip_grad = None
enable_amp = False

grid_size = 0.2  # metres
feat_keys = ("strength", "height")
criteria = [
    dict(type="CrossEntropyLoss", loss_weight=1.0, ignore_index=-1),
    dict(type="LovaszLoss", mode="multiclass", loss_weight=1.0, ignore_index=-1),
]

# model settings: the encoder of the pretraining; the configs add a decoder and say what is frozen
model = dict(
    type="DOS-Segmentor-v1m1",
    num_classes=15,
    criteria=criteria,
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
    ),
)

# scheduler settings
epoch = 10
eval_epoch = 5
scheduler = dict(
    type="OneCycleLR",  # the configs set max_lr
    pct_start=0.05,
    anneal_strategy="cos",
    div_factor=10.0,
    final_div_factor=100.0,
)

# dataset settings
data_root = "data/dos-demo"
voxels = dict(
    type="GridSample",
    grid_size=grid_size,
    hash_type="fnv",
    mode="train",
    return_grid_coord=True,
)
collect = dict(type="Collect", keys=("coord", "grid_coord", "segment", "name"), feat_keys=feat_keys)

data = dict(
    num_classes=15,
    ignore_index=-1,
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
        type="DefaultDataset",
        split="train",
        data_root=data_root,
        transform=[
            dict(type="RandomRotate", angle=[-1, 1], axis="z", center=[0, 0, 0], p=1.0),
            dict(type="RandomScale", scale=[0.95, 1.05]),
            dict(type="RandomFlip", p=0.5),
            voxels,
            dict(type="Height"),
            dict(type="ToTensor"),
            collect,
        ],
        test_mode=False,
        loop=1,
        ignore_index=-1,
    ),
    val=dict(
        type="DefaultDataset",
        split="val",
        data_root=data_root,
        transform=[voxels, dict(type="Height"), dict(type="ToTensor"), collect],
        test_mode=False,
        ignore_index=-1,
    ),
    test=dict(
        type="DefaultDataset",
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
        ignore_index=-1,
    ),
)
