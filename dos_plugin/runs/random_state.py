"""The random generators of a process, left as they were."""

from __future__ import annotations

import random

import numpy as np
import torch


class preserved_random:
    """Context that puts the generators of torch (CPU and GPUs), numpy and Python back as it ends.

    GPUs count only once CUDA is in use: asking before would start it, which a process that loads
    data must not.
    """

    def __enter__(self) -> None:
        self.state = torch.get_rng_state(), np.random.get_state(), random.getstate()
        self.devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self.state[0])
        np.random.set_state(self.state[1])
        random.setstate(self.state[2])
        if self.devices:
            torch.cuda.set_rng_state_all(self.devices)


class seeded(preserved_random):
    """Context with freshly seeded generators, which are put back as it ends."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        super().__enter__()
        # torch.manual_seed would also seed GPUs that are not in use yet, and that would stay.
        torch.default_generator.manual_seed(self.seed)
        if self.devices:
            torch.cuda.manual_seed_all(self.seed)
        np.random.seed(self.seed)
        random.seed(self.seed)
