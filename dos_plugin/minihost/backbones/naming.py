"""Parameter names: the real host's (which the backbones here use) and torch-pointcloud's.

The embedded backbones name their modules as the real host does, so a state dict moves between the
two hosts as it is. The table below is for taking a backbone to plain torch-pointcloud models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# Pattern of a host name -> torch-pointcloud's; all that match are applied, from top to bottom.
TO_TORCH_POINTCLOUD = (
    # Point Transformer V3
    (r"^embedding\.stem\.(linear|conv)\.", "encoder.stem.stem."),
    (r"^embedding\.stem\.norm\.", "encoder.stem.norm."),
    (r"^enc\.enc(\d+)\.down\.", r"encoder.blocks.\1.downsample."),
    (r"\.downsample\.norm\.0\.", ".downsample.norm."),
    (r"^enc\.enc(\d+)\.block(\d+)\.", r"encoder.blocks.\1.blocks.\2."),
    (r"^dec\.dec(\d+)\.up\.", r"decoder.blocks.\1.upsample."),
    (r"\.upsample\.proj(|_skip)\.0\.", r".upsample.proj\1."),
    (r"\.upsample\.proj(|_skip)\.1\.", r".upsample.norm\1."),
    (r"^dec\.dec(\d+)\.block(\d+)\.", r"decoder.blocks.\1.blocks.\2."),
    (r"\.cpe\.0\.", ".cpe_conv."),
    (r"\.cpe\.1\.", ".cpe_proj."),
    (r"\.cpe\.2\.", ".cpe_norm."),
    (r"\.norm([12])\.0\.", r".norm\1."),
    (r"\.mlp\.0\.fc1\.", ".mlp.0."),
    (r"\.mlp\.0\.fc2\.", ".mlp.3."),
    # SpUNet
    (r"^(conv_input|down|enc)\.", r"encoder.\1."),
    (r"^(up|dec)\.", r"decoder.\1."),
    (r"\.bn([12])\.", r".norm\1."),
    (r"^final\.", "head."),
)


def to_torch_pointcloud(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a backbone's state dict for torch-pointcloud's segmentation models.

    Their encoder is called ``encoder``, their decoder ``decoder``; a bare
    ``PointTransformerV3Encoder`` takes the names below ``encoder.``. The mask token, of which
    torch-pointcloud knows nothing, is left out.

    Args:
        state: State dict of PT-v3m1, PT-v3m2 or SpUNet-v1m1 without a prefix.

    Raises:
        ValueError: for layer scales, which torch-pointcloud does not have.
    """
    scales = [key for key in state if key.endswith(".gamma")]
    if scales:
        raise ValueError(f"state: torch-pointcloud has no layer scale, found {scales[0]!r}")
    # The host numbers decoder stages by the level they return to, torch-pointcloud as they run.
    stages = [int(m[1]) for key in state if (m := re.match(r"dec\.dec(\d+)\.", key))]
    last = max(stages, default=0)
    batch_norms = {k.rpartition(".")[0] for k in state if k.endswith(".running_mean")}
    renamed = {}
    for key, value in state.items():
        if key == "embedding.mask_token":
            continue
        module, _, leaf = key.rpartition(".")
        if module in batch_norms:  # torch-pointcloud's are wrapped once more
            key = f"{module}.module.{leaf}"
        for pattern, replacement in TO_TORCH_POINTCLOUD:
            key = re.sub(pattern, replacement, key)
        if stages:
            key = re.sub(
                r"^decoder\.blocks\.(\d+)", lambda m: f"decoder.blocks.{last - int(m[1])}", key
            )
        renamed[key] = value
    return renamed
