"""Smooth random displacement of a scene."""

import random
from collections.abc import Sequence

import numpy as np

from ..registry import TRANSFORMS


@TRANSFORMS.register_module()
class ElasticDistortion:
    """Move points along smoothed noise, with probability 0.95.

    Args:
        distortion_params: Pairs (granularity, magnitude), applied one after the other: spacing of
            the noise grid, and factor of the standard normal noise before smoothing, metres.
    """

    def __init__(self, distortion_params: Sequence[Sequence[float]] | None = None) -> None:
        default = ((0.2, 0.4), (0.8, 1.6))
        self.distortion_params = default if distortion_params is None else distortion_params

    def __call__(self, data_dict: dict) -> dict:
        if "coord" in data_dict and random.random() < 0.95:
            for granularity, magnitude in self.distortion_params:
                coord = data_dict["coord"]
                field = _displacement(coord, granularity) * magnitude
                data_dict["coord"] = coord + field.astype(coord.dtype)
        return data_dict


def _displacement(coord: np.ndarray, granularity: float) -> np.ndarray:
    """Noise on a grid around the points, smoothed by two passes of a 3x3x3 box, interpolated."""
    from scipy.ndimage import map_coordinates, uniform_filter

    low = coord.min(axis=0)
    shape = ((coord.max(axis=0) - low) // granularity).astype(int) + 3
    # the grid begins one spacing below the points, so every point lies inside it
    position = ((coord - low) / granularity + 1).T
    columns = []
    for noise in np.random.randn(3, *shape):
        for _ in range(2):
            noise = uniform_filter(noise, size=3, mode="constant")
        columns.append(map_coordinates(noise, position, order=1, mode="nearest"))
    return np.stack(columns, axis=1)
