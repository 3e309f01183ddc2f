"""Joining samples into one packed batch."""

from collections.abc import Mapping, Sequence
from typing import Any

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
    """:func:`collate_fn` for dicts; mixing neighbouring samples is left to the real host.

    Raises:
        TypeError: If the samples are no dicts.
        ValueError: If ``mix_prob`` is not 0.
    """
    if not isinstance(batch[0], Mapping):
        raise TypeError(f"a sample must be a dict, got {type(batch[0]).__name__}")
    if mix_prob:
        raise ValueError(f"mix_prob must be 0 on the embedded host, got {mix_prob!r}")
    return collate_fn(batch)
