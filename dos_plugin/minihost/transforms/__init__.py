"""Transforms of the embedded host: a transform maps the dict of one sample to a dict.

Names, arguments and results are those of the real host. Random numbers come from ``random`` and
``numpy.random``, which the trainer seeds per sample. The arrays of the input are never changed in
place. Lengths are metres; floating point types are kept.
"""

from ..registry import TRANSFORMS
from . import color, elastic, geometry, plumbing, selection  # noqa: F401  (register themselves)


class Compose:
    """Apply transforms, built from their configs, one after the other."""

    def __init__(self, cfg: list | None = None) -> None:
        self.cfg = cfg if cfg is not None else []
        self.transforms = [TRANSFORMS.build(item) for item in self.cfg]

    def __call__(self, data_dict: dict) -> dict:
        for transform in self.transforms:
            data_dict = transform(data_dict)
        return data_dict
