"""RandomStrength: augmentation of what a LiDAR's pulses bring back; numpy only."""

from collections.abc import Sequence

import numpy as np

from dos_plugin.method.options import check_number


class RandomStrength:
    """Multiply the ``strength`` of all points by one factor, and add noise to each.

    Sensors and their calibrations differ in strength more than the world does, and within the two
    views of a scene equal strengths tell equal points without any look at their surroundings.

    Args:
        scale: Range of the factor, uniform.
        sigma: Standard deviation of the noise, in units of ``strength`` (0 to 1 in the host).
        p: Probability.

    Raises:
        ValueError: If an option is out of range.
        KeyError: If a sample has no ``strength``.
    """

    def __init__(self, scale: Sequence[float] = (0.7, 1.3), sigma: float = 0.05, p: float = 1.0):
        if not isinstance(scale, list | tuple) or len(scale) != 2:
            raise ValueError(f"RandomStrength: scale must be two numbers, got {scale!r}")
        check_number("RandomStrength: scale[0]", scale[0], "[0, 1000]")
        check_number("RandomStrength: scale[1]", scale[1], f"[{scale[0]}, 1000]")
        check_number("RandomStrength: sigma", sigma, "[0, 1000]")
        check_number("RandomStrength: p", p, "[0, 1]")
        self.scale = scale
        self.sigma = sigma
        self.p = p

    def __call__(self, data: dict) -> dict:
        if "strength" not in data:
            raise KeyError("RandomStrength: the sample has no 'strength'")
        if np.random.rand() < self.p:
            strength = data["strength"]
            noise = np.random.normal(0, self.sigma, strength.shape)
            drawn = strength * np.random.uniform(*self.scale) + noise
            data["strength"] = drawn.astype(strength.dtype)
        return data
