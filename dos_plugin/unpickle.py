"""Pickles of other programs: numbers, arrays, tensors and containers, and nothing that acts.

A pickle names functions that are called while it is read, so one from elsewhere may do anything.
Here it gets those that make arrays and tensors. Boxes and data samples of MMDetection3D, which its
results hold, become :class:`StandIn`, which keeps what was stored and does nothing.
"""

from __future__ import annotations

import collections
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


class StandIn:
    """An object of a class that is not loaded: its attributes, as stored."""

    name = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args

    def __repr__(self) -> str:
        return f"<{self.name}>"


def _storage(content: bytes) -> Any:
    """As ``torch.storage._load_from_bytes``, which would run what hides in the bytes."""
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise pickle.UnpicklingError("holds other things in place of a tensor's bytes") from error


def _names(module: str, *names: str) -> dict[tuple[str, str], Any]:
    return {(module, name): getattr(__import__(module, fromlist=[name]), name) for name in names}


_MAKERS: Any = np.empty(0).__reduce__()[0]
_SCALAR: Any = np.float64(0).__reduce__()[0]
_FROMBUFFER: Any = np.zeros(1).__reduce_ex__(5)[0]
_CODECS = __import__("codecs").encode

ADMITTED: dict[tuple[str, str], Any] = {
    **_names(
        "builtins",
        *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list"),
        *("range", "set", "slice", "str", "tuple"),
    ),
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _CODECS,  # bytes in pickles of protocol 2
    **_names("numpy", "ndarray", "dtype", "bool_", "str_", "float16", "float32", "float64"),
    **_names("numpy", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    **{
        (f"numpy.{core}.{module}", name): made
        for core in ("core", "_core")
        for module, name, made in (
            ("multiarray", "_reconstruct", _MAKERS),
            ("multiarray", "scalar", _SCALAR),
            ("numeric", "_frombuffer", _FROMBUFFER),
        )
    },
    **_names("torch", "Size", "device", "float16", "float32", "float64", "int32", "int64"),
    **_names("torch._utils", "_rebuild_tensor_v2", "_rebuild_parameter"),
    ("torch.storage", "_load_from_bytes"): _storage,
}
# Paths as text, whatever the system.
ADMITTED |= {
    (module, name): lambda *parts: "/".join(parts)
    for module in ("pathlib", "pathlib._local")
    for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
}
STAND_INS = ("mmdet3d.structures", "mmdet.structures", "mmengine.structures")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        module = module.replace("__builtin__", "builtins")  # so called in protocol 2
        if (module, name) in ADMITTED:
            return ADMITTED[module, name]
        if module.startswith(STAND_INS):
            return type(name, (StandIn,), {"name": name})
        raise pickle.UnpicklingError(f"holds {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("holds references to another file")


def read_pickle(path: str | Path) -> Any:
    """What a pickle holds.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no pickle, is cut off, or holds anything else than numbers, strings,
            containers, arrays, tensors and boxes of MMDetection3D.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected a pickle")
    try:
        with path.open("rb") as file:
            return _Unpickler(file).load()
    except pickle.UnpicklingError as error:
        if not str(error).startswith("holds"):
            raise ValueError(f"{path}: no pickle, or cut off ({error})") from error
        raise ValueError(
            f"{path}: {error}, which could run code when it is read; expected numbers, strings, "
            "containers, NumPy arrays, tensors and boxes of MMDetection3D"
        ) from error
    except Exception as error:  # a damaged file fails in any way
        raise ValueError(
            f"{path}: no pickle, or cut off ({type(error).__name__}: {error})"
        ) from error
