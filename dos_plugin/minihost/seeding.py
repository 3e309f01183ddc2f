"""Random numbers that depend on the seed, the epoch and the sample, and on nothing else.

The real host seeds each data-loader worker once and restores no random state on resume, so a
resumed run there replays the augmentations of epoch 0. Here every stream is derived instead of
continued:

- the order of the samples from (seed, epoch), by :class:`EpochSampler`;
- everything random inside a sample (``random``, ``numpy.random``, torch) from (seed, epoch, index).
  Workers persist and cannot know the epoch, so the sampler hands (epoch, index) to
  :class:`SeededDataset`, which seeds and then reads the sample;
- everything random in the main process (drop path, shuffled curves) from (seed, rank, epoch), set
  by the trainer at the start of each epoch.

So a run is the same twice, with any number of workers, and resuming at an epoch boundary continues
exactly as if there had been no interruption, without any random state in the checkpoint.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, get_worker_info


def derive_seed(*parts: int) -> int:
    """A 32-bit seed from non-negative integers; different tuples give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def set_seed(seed: int) -> None:
    """Seed ``random``, ``numpy.random`` and torch (all devices) and ask cuDNN for determinism."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


class EpochSampler(Sampler):
    """Yields (epoch, index) in an order that only (seed, epoch) decides, split over the ranks.

    With several ranks the order is padded from its beginning to a multiple of their number.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length = length
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.length // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(self.length)
        order = np.resize(order, len(self) * self.world_size)
        for index in order[self.rank :: self.world_size]:
            yield self.epoch, int(index)


class SeededDataset(Dataset):
    """A dataset indexed by (epoch, index), random only in (seed, epoch, index).

    Other attributes are those of the dataset inside. When no worker process is used, the random
    state of the main process is put back after each sample.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "dataset":  # also asked while unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        saved = _random_state() if get_worker_info() is None else None
        seed = derive_seed(self.seed, epoch, index)
        random.seed(seed)
        np.random.seed(seed)
        torch.random.default_generator.manual_seed(seed)
        try:
            return self.dataset[index]
        finally:
            if saved is not None:
                _restore_random_state(saved)


def _random_state() -> tuple:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _restore_random_state(state: tuple) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
