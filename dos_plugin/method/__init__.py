"""The DOS method in plain PyTorch (AAAI-26, arXiv 2512.11465); imports nothing of any host."""

from .clustering import clustering_loss, regression_loss
from .ema import ema_update
from .head import ProjectionHead, Prototypes
from .matching import find_points, match_rows, row_features, row_levels, true_positions
from .schedule import warmup_cosine
from .softmap import dense_softmap_loss, softmap_loss
from .zipf_sinkhorn import ZipfSinkhorn, zipf_prior, zipf_sinkhorn

__all__ = [
    "ProjectionHead",
    "Prototypes",
    "ZipfSinkhorn",
    "clustering_loss",
    "dense_softmap_loss",
    "ema_update",
    "find_points",
    "match_rows",
    "regression_loss",
    "row_features",
    "row_levels",
    "softmap_loss",
    "true_positions",
    "warmup_cosine",
    "zipf_prior",
    "zipf_sinkhorn",
]
