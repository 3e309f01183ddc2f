"""Cosines of points with prototypes over a temperature, made block by block when asked for."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import linear

# Elements of a block, points times K. On a CPU a block and its temporaries should stay in the
# cache of a core; on a GPU a kernel should last longer than its launch.
BLOCK_ELEMENTS = {"cpu": 2**19, "cuda": 2**25}


class Logits:
    """Cosines of points with prototypes over a temperature, computed when asked for.

    Args:
        feat: (N, D) L2-normalised features.
        prototypes: (K, D) L2-normalised prototypes.
        temp: Temperature.
        block_size: Points in a block; the default keeps a block near ``BLOCK_ELEMENTS`` elements.
    """

    def __init__(
        self, feat: Tensor, prototypes: Tensor, temp: float, block_size: int | None = None
    ):
        self.feat = feat.detach()
        self.prototypes = prototypes.detach().to(torch.promote_types(feat.dtype, torch.float32))
        self.temp = temp
        elements = BLOCK_ELEMENTS.get(feat.device.type, BLOCK_ELEMENTS["cuda"])
        self.block_size = block_size or max(1, elements // max(1, len(prototypes)))
        self._weight = self.prototypes / temp

    def blocks(self) -> Iterator[slice]:
        """The blocks of points, in order."""
        for start in range(0, len(self.feat), self.block_size):
            yield slice(start, start + self.block_size)

    def rows(self, rows: slice) -> Tensor:
        """(rows, D) features of a block in the precision of the logits."""
        return self.feat[rows].to(self.prototypes.dtype)

    def block(self, rows: slice, bias: Tensor | None = None) -> Tensor:
        """(rows, K) logits of a block plus ``bias`` (K,), a new tensor."""
        return product(self.rows(rows), self._weight, bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``.

    Torch multiplies float32 matrices on CPUs with MKL, which leaves AVX-512 unused on processors
    of other makers; oneDNN, also part of torch, does not (docs/performance.md).
    """
    on_cpu = x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() > 0
    if on_cpu and torch.backends.mkldnn.is_available() and not torch.compiler.is_compiling():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return linear(x, weight, bias)


def matmul_precision() -> str:
    """``torch.get_float32_matmul_precision()``, also where torch refuses to tell."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set through torch.backends
        return "high" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "highest"
