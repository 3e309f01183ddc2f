"""Transforms of ``color`` (N, 3), values in [0, 255]."""

from collections.abc import Sequence

import numpy as np

from ..registry import TRANSFORMS

_LUMA = np.array([0.2989, 0.587, 0.114])

Amount = float | Sequence[float]


@TRANSFORMS.register_module()
class ChromaticAutoContrast:
    """Stretch each channel to [0, 255] with probability p, blended with the colours as they are.

    Args:
        p: Probability.
        blend_factor: Share of the stretched colours; None draws it.
    """

    def __init__(self, p: float = 0.2, blend_factor: float | None = None) -> None:
        self.p = p
        self.blend_factor = blend_factor

    def __call__(self, data_dict: dict) -> dict:
        if "color" not in data_dict or np.random.rand() >= self.p:
            return data_dict
        color = data_dict["color"]
        low, extent = color.min(axis=0), np.ptp(color, axis=0)
        if not extent.any():
            return data_dict
        stretched = (color - low) * np.where(extent > 0, 255 / np.where(extent > 0, extent, 1), 1)
        share = np.random.rand() if self.blend_factor is None else self.blend_factor
        data_dict["color"] = (color + share * (stretched - color)).astype(color.dtype)
        return data_dict


@TRANSFORMS.register_module()
class ChromaticJitter:
    """Add Gaussian noise of ``255 * std`` to each colour, with probability p."""

    def __init__(self, p: float = 0.95, std: float = 0.005) -> None:
        self.p = p
        self.std = std

    def __call__(self, data_dict: dict) -> dict:
        if "color" in data_dict and np.random.rand() < self.p:
            color = data_dict["color"]
            noise = np.random.randn(*color.shape) * 255 * self.std
            data_dict["color"] = (color + noise).clip(0, 255).astype(color.dtype)
        return data_dict


@TRANSFORMS.register_module()
class ChromaticTranslation:
    """Shift each channel by up to ``255 * ratio``, the same for all points, with probability p."""

    def __init__(self, p: float = 0.95, ratio: float = 0.05) -> None:
        self.p = p
        self.ratio = ratio

    def __call__(self, data_dict: dict) -> dict:
        if "color" in data_dict and np.random.rand() < self.p:
            shift = np.random.uniform(-1, 1, (1, 3)) * 255 * self.ratio
            color = data_dict["color"]
            data_dict["color"] = (color + shift).clip(0, 255).astype(color.dtype)
        return data_dict


@TRANSFORMS.register_module()
class RandomColorJitter:
    """Change brightness, contrast, saturation and hue in random order, each with probability p.

    Args:
        brightness, contrast, saturation: Range of the factor, or x for [max(0, 1 - x), 1 + x].
        hue: Range of the shift in turns, or x for [-x, x]; at most half a turn.
        p: Probability of each of the changes.

    Raises:
        ValueError: If a range is out of bounds.
    """

    def __init__(
        self,
        brightness: Amount = 0,
        contrast: Amount = 0,
        saturation: Amount = 0,
        hue: Amount = 0,
        p: float = 0.95,
    ) -> None:
        self.changes = {
            _brightness: _range("brightness", brightness, 1, (0, np.inf)),
            _contrast: _range("contrast", contrast, 1, (0, np.inf)),
            _saturation: _range("saturation", saturation, 1, (0, np.inf)),
            _hue: _range("hue", hue, 0, (-0.5, 0.5)),
        }
        self.p = p

    def __call__(self, data_dict: dict) -> dict:
        changes = list(self.changes.items())
        for which in np.random.permutation(len(changes)):
            change, (low, high) = changes[which]
            if np.random.rand() < self.p:
                color = data_dict["color"]
                changed = change(color, np.random.uniform(low, high))
                data_dict["color"] = changed.clip(0, 255).astype(color.dtype)
        return data_dict


def _range(name: str, amount: Amount, center: int, bounds: tuple) -> tuple[float, float]:
    if isinstance(amount, Sequence):
        low, high = amount
    else:
        low, high = center - amount, center + amount
        low = max(low, 0) if center else low
    if not bounds[0] <= low <= high <= bounds[1]:
        raise ValueError(f"{name} must be a range in {bounds}, got {amount!r}")
    return low, high


def _brightness(color: np.ndarray, factor: float) -> np.ndarray:
    return color * factor


def _contrast(color: np.ndarray, factor: float) -> np.ndarray:
    mean = (color @ _LUMA).mean()
    return mean + (color - mean) * factor


def _saturation(color: np.ndarray, factor: float) -> np.ndarray:
    gray = (color @ _LUMA)[:, None]
    return gray + (color - gray) * factor


def _hue(color: np.ndarray, turns: float) -> np.ndarray:
    """Turn the hue, keeping saturation and value of the HSV cone."""
    red, green, blue = color.T
    value, chroma = color.max(axis=1), np.ptp(color, axis=1)
    safe = np.where(chroma > 0, chroma, 1)
    sextant = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    k = (np.array([5, 3, 1]) + (sextant + 6 * turns)[:, None]) % 6
    return value[:, None] - chroma[:, None] * np.minimum(k, 4 - k).clip(0, 1)
