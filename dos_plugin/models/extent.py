"""Clouds that are too long for a backbone, named: its own error comes late and knows no scene."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dos_plugin.ingest.scan import CELLS
from dos_plugin.messages import some


@contextmanager
def long_clouds_named(
    grid_coord: Tensor | None, offset: Tensor, names: Sequence[str] | None = None
) -> Iterator[None]:
    """Within it a backbone's error is one that names the clouds at fault, if their length is why.

    PTv3 orders voxels by 16 bits an axis. The host asserts as much without a word, and other
    backbones take longer clouds, so that only a failure is looked into.

    Args:
        grid_coord: (N, 3) cells, from 0 in every cloud; None where a backbone needs none.
        offset: (B,) cumulative point counts.
        names: of the B clouds; None: their numbers.

    Raises:
        ValueError: A cloud has more than 65,535 cells along an axis, and the backbone failed.
    """
    try:
        yield
    except (ValueError, AssertionError) as error:
        if grid_coord is None:
            raise
        far = (grid_coord >= CELLS).any(dim=1).nonzero().flatten()
        if not len(far):
            raise
        clouds = torch.searchsorted(offset.to(far), far, right=True).unique().tolist()
        called = [repr(names[cloud]) if names else str(cloud) for cloud in clouds]
        raise ValueError(
            f"scene(s) {some(called)} of a batch are {int(grid_coord.max()) + 1:,} voxels long, "
            f"expected at most {CELLS:,} along an axis; one far point is enough: "
            "max_extent of PointId in data.train.transform drops such points"
        ) from error
