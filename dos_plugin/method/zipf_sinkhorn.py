"""Zipf-Sinkhorn: Sinkhorn normalisation with a power-law prior over prototypes (DOS, section 3).

Shape letters in this file: N points, K prototypes, D channels.

The plan is ``diag(u) F diag(v)`` with ``F = exp(cos / temp)``, so only scaling vectors have to be
kept. We keep ``log v`` (the *bias*, K numbers): scaling the rows of ``F diag(v)`` to a common sum
is a softmax over prototypes of ``cos / temp + log v``, which also guards both ends of the float
range: everything stays finite at any temperature, and columns are exact in float32 for
temperatures above 0.023 (below, a prototype opposite to every point gets no mass). One iteration
is then one pass over blocks of points and one all-reduce of K numbers.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .blocks import column_logsumexp, softmax_column_sums
from .distributed import all_reduce_logsumexp, all_reduce_sum
from .logits import Logits
from .options import MOST_ROWS, check_choice, check_number, check_whole

Scope = Literal["batch", "cloud"]
MOST_ITERS = 100_000  # each is a pass over all points x prototypes
TEMP = "[1e-06, 1000]"  # of temperatures; cosines over smaller ones leave float32
ALPHA = "[0, 1000]"  # of exponents


def zipf_prior(num_prototypes: int, alpha: float, device: torch.device | None = None) -> Tensor:
    """Zipf prior ``w_k = k^-alpha / sum_j j^-alpha`` (DOS, section 3), float32.

    Args:
        num_prototypes: K, at least 2.
        alpha: Exponent from 0 to 1000; 0 is the uniform prior of plain Sinkhorn-Knopp.
        device: Where the result lives.

    Returns:
        (K,) prior in falling order, sums to 1.

    Raises:
        ValueError: If ``num_prototypes`` or ``alpha`` is out of range.
    """
    check_whole("num_prototypes", num_prototypes, 2, MOST_ROWS)
    check_number("alpha", alpha, ALPHA)
    rank = torch.arange(1, num_prototypes + 1, dtype=torch.float64, device=device)
    weight = rank.pow(-alpha)
    return (weight / weight.sum()).float()


class Scaling(NamedTuple):
    """What turns logits into Zipf-Sinkhorn targets.

    ``target = softmax(logits + bias, over prototypes) / exp(log_column)``: columns sum to 1 over
    all points (of all ranks, where the scope spans ranks). Without iterations rows are not scaled:
    ``target = exp(logits + bias) / exp(log_column)``.
    """

    bias: Tensor  # (K,) log v before the last column scaling, in the precision of the logits
    log_column: Tensor  # (K,) float64 log of the column sums after the last row scaling
    by_row: bool = True  # whether rows are scaled

    def log_assigned(self, logits: Logits, rows: slice) -> Tensor:
        """(rows, K) logarithm of the targets of a block before the last column scaling."""
        block = logits.block(rows, self.bias)
        return torch.log_softmax(block, dim=1) if self.by_row else block


def scaling_vectors(
    logits: Logits, prior: Tensor, num_iters: int, across_ranks: bool = True
) -> Scaling:
    """Run ``num_iters`` Zipf-Sinkhorn iterations, each rows first, then columns (DOS, section 3).

    Args:
        logits: Teacher logits, N >= 0 points.
        prior: (K,) column marginal.
        num_iters: Iterations; 0 scales columns only, the plain softmap of the teacher.
        across_ranks: Sum columns over all ranks. Every rank must then call this, also with N = 0.

    Returns:
        The scaling of the final targets.
    """
    if num_iters == 0:
        log_sum = column_logsumexp(logits)
        if across_ranks:
            log_sum = all_reduce_logsumexp(log_sum)
        bias = -log_sum.to(logits.prototypes.dtype)
        return Scaling(bias, log_sum + bias, by_row=False)  # the rest of the rounding
    tiny = torch.finfo(logits.prototypes.dtype).tiny
    log_prior = prior.double().clamp_min(tiny).log()  # 1024^-15 is 0 in float32
    bias = torch.zeros_like(logits.prototypes[:, 0])
    for iteration in range(num_iters):
        column = softmax_column_sums(logits, bias)
        if across_ranks:
            column = all_reduce_sum(column)
        log_column = column.clamp_min(tiny).log()
        if iteration < num_iters - 1:
            step = bias + log_prior - log_column
            bias = (step - step.max()).to(bias.dtype)  # else it sinks by log N, and loses digits
    return Scaling(bias, log_column)


class ZipfSinkhorn(nn.Module):
    """Teacher targets: Sinkhorn scaling towards a Zipf prior over prototypes (DOS, section 3).

    Args:
        alpha: Zipf exponent; the paper's best range is 1.3 to 1.6, 0 is plain Sinkhorn-Knopp.
        num_iters: Iterations T (the paper is silent: our reading is 3). 0 is no regularisation:
            softmaps are softmaxes over points, clusters softmaxes over prototypes.
        scope: Points that share a normalisation: ``"batch"``, all points of the batch over all
            ranks (our reading), or ``"cloud"``, every cloud by itself.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, alpha: float = 1.3, num_iters: int = 3, scope: Scope = "batch"):
        super().__init__()
        check_number("alpha", alpha, ALPHA)
        check_whole("num_iters", num_iters, 0, MOST_ITERS)
        check_choice("scope", scope, ("batch", "cloud"))
        self.alpha = alpha
        self.num_iters = num_iters
        self.scope = scope

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, num_iters={self.num_iters}, scope={self.scope!r}"

    def prior(self, num_prototypes: int, device: torch.device | None = None) -> Tensor:
        """(K,) prior over prototypes."""
        return zipf_prior(num_prototypes, self.alpha, device)

    def scaling(self, logits: Logits) -> Scaling:
        """Scaling vectors of one set of points (the batch, or one cloud)."""
        prior = self.prior(len(logits.prototypes), logits.prototypes.device)
        return scaling_vectors(logits, prior, self.num_iters, across_ranks=self.scope == "batch")

    @torch.no_grad()
    def forward(self, feat: Tensor, prototypes: Tensor, temp: float) -> Tensor:
        """Dense targets of one set of points.

        Args:
            feat: (N, D) L2-normalised features.
            prototypes: (K, D) L2-normalised prototypes.
            temp: Teacher temperature.

        Returns:
            (N, K) target softmaps, columns sum to 1. Times the prior they are the transport plan.

        Raises:
            ValueError: If ``temp`` is out of range.
        """
        check_number("temp", temp, TEMP)
        with torch.autocast(feat.device.type, enabled=False):
            logits = Logits(feat, prototypes, temp, block_size=max(1, len(feat)))
            scaling = self.scaling(logits)
            return torch.cat(
                [
                    (scaling.log_assigned(logits, rows) - scaling.log_column)
                    .exp()
                    .to(scaling.bias.dtype)
                    for rows in logits.blocks()
                ]
                or [logits.prototypes.new_zeros(0, len(prototypes))]
            )


def zipf_sinkhorn(
    feat: Tensor, prototypes: Tensor, temp: float, alpha: float = 1.3, num_iters: int = 3
) -> Tensor:
    """Dense Zipf-Sinkhorn targets of one set of points; see :class:`ZipfSinkhorn`.

    Args:
        feat: (N, D) L2-normalised features.
        prototypes: (K, D) L2-normalised prototypes, K >= 2.
        temp: Teacher temperature > 0.
        alpha: Zipf exponent >= 0.
        num_iters: Iterations >= 0.

    Returns:
        (N, K) target softmaps, columns sum to 1.

    Raises:
        ValueError: If an argument is out of range.
    """
    return ZipfSinkhorn(alpha, num_iters)(feat, prototypes, temp)
