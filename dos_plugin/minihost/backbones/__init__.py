"""Backbones of the embedded host, under the real host's registry names.

Importing this repairs spconv on machines without CUDA, see ``dos_plugin.cpu.spconv_fixes``.
"""

from torch import nn

from dos_plugin.cpu import spconv_fixes

spconv_fixes.apply()

from dos_plugin.minihost.backbones.ptv3 import (  # noqa: E402
    PointTransformerV3m1,
    PointTransformerV3m2,
)
from dos_plugin.minihost.backbones.spunet import SpUNet  # noqa: E402

BACKBONES: dict[str, type[nn.Module]] = {
    "PT-v3m1": PointTransformerV3m1,
    "PT-v3m2": PointTransformerV3m2,
    "SpUNet-v1m1": SpUNet,
}

__all__ = ["BACKBONES", "PointTransformerV3m1", "PointTransformerV3m2", "SpUNet"]
