"""Transforms of positions, normals and colours that keep the number and the order of the points."""

import random

import numpy as np

from ..registry import TRANSFORMS


def _coord(data_dict: dict, transform: object) -> np.ndarray:
    """The coordinates of a sample, which must not be empty for ``transform`` to have a meaning."""
    coord = data_dict["coord"]
    if len(coord) == 0:
        raise ValueError(
            f"{type(transform).__name__}: coord of sample {data_dict.get('name', '?')!r} is empty"
        )
    return coord


def _shift(coord: np.ndarray, shift) -> np.ndarray:
    return coord + np.asarray(shift).astype(coord.dtype)


@TRANSFORMS.register_module()
class CenterShift:
    """Move the middle of the bounding box to x = y = 0, and its bottom to z = 0 if ``apply_z``."""

    def __init__(self, apply_z: bool = True) -> None:
        self.apply_z = apply_z

    def __call__(self, data_dict: dict) -> dict:
        if "coord" in data_dict:
            coord = _coord(data_dict, self)
            low, high = coord.min(axis=0), coord.max(axis=0)
            center = (low + high) / 2
            center[2] = low[2] if self.apply_z else 0
            data_dict["coord"] = coord - center
        return data_dict


def _rotation(axis: str, angle: float) -> np.ndarray:
    """Right-handed rotation matrix (3, 3) about an axis; the angle is in radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = cos
    matrix[first, second] = -sin
    matrix[second, first] = sin
    return matrix


@TRANSFORMS.register_module()
class RandomRotate:
    """Rotate coordinates and normals about one axis, with probability ``p``.

    ``angle`` is (low, high) **in units of pi**. ``center=None`` is the middle of the bounding box.
    """

    def __init__(
        self, angle=None, center=None, axis: str = "z", always_apply: bool = False, p: float = 0.5
    ) -> None:
        if axis not in ("x", "y", "z"):
            raise ValueError(f"axis must be x, y or z, got {axis!r}")
        self.angle = [-1, 1] if angle is None else angle
        self.center = center
        self.axis = axis
        self.p = 1 if always_apply else p

    def __call__(self, data_dict: dict) -> dict:
        if random.random() > self.p:
            return data_dict
        rotation = _rotation(self.axis, float(np.random.uniform(*self.angle)) * np.pi)
        if "coord" in data_dict:
            coord = _coord(data_dict, self)
            center = self.center
            if center is None:
                center = (coord.min(axis=0) + coord.max(axis=0)) / 2
            center = np.asarray(center, dtype=np.float64)
            data_dict["coord"] = ((coord - center) @ rotation.T + center).astype(coord.dtype)
        if "normal" in data_dict:
            normal = data_dict["normal"]
            data_dict["normal"] = (normal @ rotation.T).astype(normal.dtype)
        return data_dict


@TRANSFORMS.register_module()
class RandomScale:
    """Scale coordinates by a uniform factor in ``scale``, one per axis if ``anisotropic``."""

    def __init__(self, scale=None, anisotropic: bool = False) -> None:
        self.scale = [0.95, 1.05] if scale is None else scale
        self.anisotropic = anisotropic

    def __call__(self, data_dict: dict) -> dict:
        if "coord" in data_dict:
            low, high = self.scale
            factor = np.random.uniform(low, high, 3 if self.anisotropic else 1)
            coord = data_dict["coord"]
            data_dict["coord"] = coord * factor.astype(coord.dtype)
        return data_dict


@TRANSFORMS.register_module()
class RandomFlip:
    """Negate x, and independently y, of coordinates and normals, each with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, data_dict: dict) -> dict:
        sign = np.where(np.random.rand(2) < self.p, -1, 1)
        for key in ("coord", "normal"):
            if key in data_dict:
                flip = np.ones(3, dtype=data_dict[key].dtype)
                flip[:2] = sign
                data_dict[key] = data_dict[key] * flip
        return data_dict


@TRANSFORMS.register_module()
class RandomJitter:
    """Add Gaussian noise of ``sigma`` metres, cut at ``clip`` metres, to each coordinate."""

    def __init__(self, sigma: float = 0.01, clip: float = 0.05) -> None:
        if clip <= 0:
            raise ValueError(f"clip must be positive, got {clip!r}")
        self.sigma = sigma
        self.clip = clip

    def __call__(self, data_dict: dict) -> dict:
        if "coord" in data_dict:
            coord = data_dict["coord"]
            noise = self.sigma * np.random.randn(len(coord), 3)
            noise = np.clip(noise, -self.clip, self.clip)
            data_dict["coord"] = coord + noise.astype(coord.dtype)
        return data_dict


@TRANSFORMS.register_module()
class NormalizeColor:
    """Bring colours from [0, 255] to [0, 1]."""

    def __call__(self, data_dict: dict) -> dict:
        if "color" in data_dict:
            data_dict["color"] = data_dict["color"] / 255
        return data_dict
