"""Transforms that move keys around: Copy, Update, ToTensor, Collect."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..registry import TRANSFORMS


@TRANSFORMS.register_module()
class Copy:
    """Copy keys under new names: ``keys_dict`` is {old: new}."""

    def __init__(self, keys_dict: dict | None = None) -> None:
        default = {"coord": "origin_coord", "segment": "origin_segment"}
        self.keys_dict = default if keys_dict is None else keys_dict

    def __call__(self, data_dict: dict) -> dict:
        for old, new in self.keys_dict.items():
            value = data_dict[old]
            is_tensor = isinstance(value, torch.Tensor)
            data_dict[new] = value.clone().detach() if is_tensor else copy.deepcopy(value)
        return data_dict


@TRANSFORMS.register_module()
class Update:
    """Set keys to the values of ``keys_dict`` (a copy of each, so samples share nothing)."""

    def __init__(self, keys_dict: dict | None = None) -> None:
        self.keys_dict = {} if keys_dict is None else keys_dict

    def __call__(self, data_dict: dict) -> dict:
        for key, value in self.keys_dict.items():
            data_dict[key] = copy.deepcopy(value)
        return data_dict


@TRANSFORMS.register_module()
class ToTensor:
    """Turn arrays and Python numbers into tensors, also inside dicts and sequences.

    Integers become int64, floating point numbers float32; a number has shape (1,). Strings and
    tensors stay. What the real host refuses (None, NumPy scalars) is refused here too.
    """

    def __call__(self, data: Any, path: str = "") -> Any:
        if isinstance(data, (torch.Tensor, str)):
            return data
        if isinstance(data, int):
            return torch.tensor([data], dtype=torch.int64)
        if isinstance(data, float):
            return torch.tensor([data], dtype=torch.float32)
        if isinstance(data, np.ndarray):
            kind = data.dtype.kind
            if kind in "biuf":
                dtype = {"b": np.bool_, "f": np.float32}.get(kind, np.int64)
                return torch.from_numpy(np.ascontiguousarray(data, dtype=dtype).reshape(data.shape))
        if isinstance(data, Mapping):
            return {key: self(value, f"{path}.{key}".lstrip(".")) for key, value in data.items()}
        if isinstance(data, Sequence):
            return [self(value, f"{path}[{index}]") for index, value in enumerate(data)]
        raise TypeError(
            f"ToTensor: {path or 'the value'} of type {type(data).__name__} has no tensor form"
        )


@TRANSFORMS.register_module()
class Collect:
    """Pick what goes into the batch.

    Args:
        keys: Keys that are passed on.
        offset_keys_dict: {new: key}: ``new`` becomes the number of rows of ``key``, shape (1,).
            None is {"offset": "coord"}.
        **kwargs: ``<name>_keys=[...]``: ``<name>`` becomes the float columns of these keys, (N, C).
    """

    def __init__(self, keys, offset_keys_dict: dict | None = None, **kwargs) -> None:
        self.keys = [keys] if isinstance(keys, str) else keys
        self.offset_keys = {"offset": "coord"} if offset_keys_dict is None else offset_keys_dict
        for name, members in kwargs.items():
            if isinstance(members, str) or not isinstance(members, Sequence):
                raise TypeError(f"{name} must be a list of keys, got {members!r}")
        self.kwargs = kwargs

    def __call__(self, data_dict: dict) -> dict:
        if "coord" not in data_dict:  # the real host reads it always, and fails without
            raise KeyError("Collect: the sample has no 'coord'")
        data = {key: self._get(data_dict, key) for key in self.keys}
        for new, key in self.offset_keys.items():
            data[new] = torch.tensor([self._get(data_dict, key).shape[0]])
        for name, members in self.kwargs.items():
            columns = [self._get(data_dict, key).float() for key in members]
            for key, column in zip(members, columns, strict=True):
                if column.ndim != 2:
                    raise ValueError(
                        f"Collect: {name} needs columns of shape (N, C), "
                        f"but {key} has shape {tuple(column.shape)}"
                    )
            data[name.replace("_keys", "")] = torch.cat(columns, dim=1)
        return data

    @staticmethod
    def _get(data_dict: dict, key: str) -> Any:
        if key not in data_dict:
            raise KeyError(f"Collect: the sample has no {key!r}; it has {', '.join(data_dict)}")
        return data_dict[key]
