"""Joining samples into one packed batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate


def collate_fn(batch: Sequence[Any]) -> Any:
    """Join samples by the real host's rules.

    - Tensors are concatenated along their first dimension; lists become tensors first.
    - Strings become a list; numbers and arrays are stacked (a number becomes shape (B,)).
    - Dicts are joined key by key, with the keys of the first sample. A key that contains "offset"
      holds cumulative counts: the counts of the samples are put in a row and summed up again.
    - No index is shifted: ids stay those of their own sample.

    Raises:
        KeyError: If a later sample lacks a key of the first; key and sample are named.
        ValueError: If the values of a key do not fit together; the key is named.
    """
    first = batch[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(list(batch))
    if isinstance(first, str):
        return list(batch)
    if isinstance(first, Mapping):
        return {key: _collate_key(key, batch) for key in first}
    if isinstance(first, list):
        return torch.cat([torch.tensor(item) for item in batch])
    return default_collate(list(batch))


def _collate_key(key: str, batch: Sequence[Mapping]) -> Any:
    for number, sample in enumerate(batch):
        if key not in sample:
            name = sample.get("name", number)
            raise KeyError(f"collate: sample {name!r} of the batch lacks the key {key!r}")
    if "correspondence" in key:
        raise NotImplementedError(f"collate: {key!r}: image correspondences need the real host")
    values = [sample[key] for sample in batch]
    try:
        if "offset" in key:
            counts = [value.diff(prepend=value.new_zeros(1)) for value in values]
            return torch.cat(counts).cumsum(dim=0)
        return collate_fn(values)
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        shapes = [tuple(getattr(value, "shape", ())) for value in values]
        raise ValueError(
            f"collate: the values of {key!r}, shapes {shapes}, do not fit together: {error}"
        ) from error


def point_collate_fn(batch: Sequence[Mapping], mix_prob: float = 0) -> dict:
    """:func:`collate_fn` for dicts; with probability ``mix_prob`` neighbouring samples are mixed.

    Two mixed samples (Mix3D, arXiv 2110.02210) are one cloud: all rows stay, the offset between
    them goes. Each keeps the frame of its ``grid_coord``, as on the real host. Whether a batch is
    mixed depends on the numbers of points in it alone, so that workers change nothing.

    Raises:
        TypeError: If the samples are no dicts.
        ValueError: If views are to be mixed, or instances or grid coordinates renumbered, which
            the real host does.
    """
    if not isinstance(batch[0], Mapping):
        raise TypeError(f"a sample must be a dict, got {type(batch[0]).__name__}")
    joined = collate_fn(batch)
    if not mix_prob:
        return joined
    offset_keys = [key for key in joined if "offset" in key]
    refused = sorted({"instance", "grid_size"} & joined.keys())
    refused += [key for key in offset_keys if key != "offset"]
    if refused or not offset_keys:
        raise ValueError(
            f"mix_prob={mix_prob}: a batch with {', '.join(refused) or 'no offset'} cannot be "
            "mixed here, set mix_prob=0"
        )
    counts = joined["offset"].tolist()
    if np.random.default_rng(counts).random() < mix_prob:
        joined["offset"] = torch.tensor([*counts[1:-1:2], counts[-1]])
    return joined
