"""
Pointcept's Sonata on the synthetic streets: everything as in the ablation's configs of DOS
(backbone, scans, voxels, augmentations, features, head, prototypes, optimizer, steps) but what
makes it Sonata: two global and four local views, mask tokens, three losses, matching by distance.

Lengths follow the host's config: masked blocks are as large as DOS's (1 m), jitter is half an
input voxel, matches are at most four voxels of the features apart (two input voxels each here,
after one pooling). Learning rate and momentum are DOS's. It runs on Pointcept alone; see
comparison.py.
"""

_base_ = ["../configs/dos/ablation/_base_.py"]

grid_size = 0.2  # metres

model = dict(
    _delete_=True,
    type="Sonata-v1m1",
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
        traceable=True,
        enc_mode=True,
        mask_token=True,
    ),
    teacher_custom=dict(drop_path=0.0),
    head_in_channels=384,
    head_hidden_channels=256,
    head_embed_channels=64,
    head_num_prototypes=256,
    num_global_view=2,
    num_local_view=4,
    mask_size_start=0.25,
    mask_size_base=1.0,
    mask_ratio_start=0.3,
    mask_ratio_base=0.7,
    mask_jitter=0.1,
    teacher_temp_start=0.04,
    teacher_temp_base=0.07,
    student_temp=0.1,
    momentum_base=0.996,
    momentum_final=1.0,
    match_max_k=8,
    match_max_r=1.6,
    up_cast_level=2,
)

augmentations = [
    dict(type="RandomRotate", angle=[-1, 1], axis="z", center=[0, 0, 0], p=1.0),
    dict(type="RandomScale", scale=[0.95, 1.05]),
    dict(type="RandomFlip", p=0.5),
    dict(type="RandomJitter", sigma=0.01, clip=0.05),
    dict(type="Height"),
]
data = dict(
    train=dict(
        transform=[
            dict(type="GridSample", grid_size=grid_size, hash_type="fnv", mode="train"),
            dict(type="Copy", keys_dict=dict(coord="origin_coord")),
            dict(
                type="MultiViewGenerator",
                view_keys=("coord", "origin_coord", "strength", "height"),
                global_view_num=2,
                global_view_scale=(0.6, 1.0),
                local_view_num=4,
                local_view_scale=(0.1, 0.4),
                global_transform=augmentations,
                local_transform=augmentations,
                max_size=1500,
            ),
            dict(type="ToTensor"),
            dict(type="Update", keys_dict=dict(grid_size=grid_size)),
            dict(
                type="Collect",
                keys=(
                    "global_origin_coord",
                    "global_coord",
                    "global_offset",
                    "local_origin_coord",
                    "local_coord",
                    "local_offset",
                    "grid_size",
                    "name",
                ),
                offset_keys_dict=dict(),
                global_feat_keys=("global_strength", "global_height"),
                local_feat_keys=("local_strength", "local_height"),
            ),
        ],
    ),
)
hooks = [
    dict(type="CheckpointLoader"),
    dict(type="ModelHook"),
    dict(type="WeightDecaySchedular", base_value=0.04, final_value=0.2),
    dict(type="IterationTimer", warmup_iter=2),
    dict(type="InformationWriter"),
    dict(type="CheckpointSaver", save_freq=None),
]
