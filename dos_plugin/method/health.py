"""Numbers that tell features that learn from features that collapse.

Letters: N points, K prototypes, D channels of the projection. All functions read only.
"""

import torch
from torch import Tensor

from .blocks import softmax_column_sums
from .logits import Logits
from .zipf_sinkhorn import Scaling


def kl_divergence(mass: Tensor, prior: Tensor) -> float:
    """KL(mass || prior) in nats, of two distributions over prototypes."""
    return float(torch.special.xlogy(mass, mass / prior).double().sum())


def effective_number(mass: Tensor) -> float:
    """exp(entropy): K for even use, 1 if one prototype has it all."""
    return float((-torch.special.xlogy(mass, mass)).double().sum().exp())


def own_mass(logits: Logits) -> Tensor:
    """(K,) float64 mass without regularisation: mean over points of softmax(cos / temp)."""
    return softmax_column_sums(logits, torch.zeros_like(logits.prototypes[:, 0])) / len(logits.feat)


def assigned_mass(logits: Logits, scaling: Scaling) -> Tensor:
    """(K,) float64 mass before the last column scaling, after which it is the prior's by force.

    Where the scaling has no iterations it is :func:`own_mass`.
    """
    if not scaling.by_row:
        return own_mass(logits)
    return scaling.log_column.exp() / len(logits.feat)


def dead_prototypes(mass: Tensor, prior: Tensor, below: float = 0.01) -> int:
    """Prototypes whose mass is less than ``below`` times the prior's."""
    return int((mass < below * prior).sum())


def duplicate_prototypes(prototypes: Tensor, above: float = 0.95) -> int:
    """Prototypes (K, D), unit length, whose cosine with one of lower index exceeds ``above``.

    So K equal prototypes have K - 1 duplicates: what could be removed without loss.
    """
    cosine = (prototypes @ prototypes.T).tril(diagonal=-1)
    return int((cosine > above).any(dim=1).sum())


def softmap_entropy(logits: Logits, scaling: Scaling) -> float:
    """Entropy over points of the target softmaps, mean over prototypes, divided by log N.

    1 is a target that is the same everywhere, 0 is all of it at one point; 1 where N = 1.
    """
    total = torch.zeros_like(scaling.log_column)
    log_column = scaling.log_column.to(scaling.bias.dtype)
    for rows in logits.blocks():
        log_target = scaling.log_assigned(logits, rows) - log_column
        total -= (log_target.exp() * log_target).sum(dim=0)
    return _share_of_log(total.mean(), len(logits.feat))


def assignment_entropy(logits: Logits, bias: Tensor) -> float:
    """Entropy over prototypes of softmax(logits + bias), mean over points, divided by log K.

    1 is a point that belongs to all prototypes alike, 0 to one only.
    """
    total = torch.zeros((), dtype=torch.float64, device=bias.device)
    for rows in logits.blocks():
        log_share = torch.log_softmax(logits.block(rows, bias), dim=1)
        total -= (log_share.exp() * log_share).sum()
    return _share_of_log(total / max(1, len(logits.feat)), len(bias))


def channel_std(feat: Tensor) -> tuple[float, float]:
    """Standard deviation of the channels of unit rows (N, D), times sqrt(D): mean and smallest.

    1 is a sphere that is used evenly, 0 are features that are all the same.
    """
    std = feat.std(dim=0, correction=0) * feat.shape[1] ** 0.5
    mean, smallest = torch.stack([std.mean(), std.min()]).tolist()
    return mean, smallest


def rank_me(feat: Tensor, max_rows: int = 4096) -> float:
    """Effective rank of features (N, D): exp(entropy) of the singular values over their sum.

    (RankMe, arXiv 2210.02885.) Between 1 and min(N, D). Of more than ``max_rows`` rows, evenly
    strided ones are taken. NaN where the features are not finite, or all 0.
    """
    rows = feat[:: -(-len(feat) // max_rows)].double()
    gram = (rows.T @ rows).cpu()
    if not gram.isfinite().all():  # eigenvalues of it would be an error
        return torch.nan
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    return effective_number(singular / singular.sum())


def _share_of_log(entropy: Tensor, count: int) -> float:
    log_count = torch.tensor(float(count), dtype=torch.float64).log().item()
    return float(entropy) / log_count if log_count else 1.0
