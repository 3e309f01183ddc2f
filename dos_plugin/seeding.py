"""Random numbers that depend on the seed, the epoch and the sample, and on nothing else.

The real host seeds each data-loader worker once and restores no random state on resume, so a
resumed run there replays the augmentations of epoch 0. Here every stream is derived instead of
continued:

- the order of the samples from (seed, epoch), by :class:`EpochSampler`;
- everything random inside a sample (``random``, ``numpy.random``, torch) from (seed, epoch, index).
  Workers persist and cannot know the epoch, so the sampler hands (epoch, index) to
  :class:`SeededDataset`, which seeds and then reads the sample;
- everything random in the main process (drop path, shuffled curves) from (seed, rank, epoch), set
  at the start of each epoch, or from (seed, rank, epoch, batch) where a run can go on in the middle
  of one (``ExactResume``).

So a run is the same twice, with any number of workers, and resuming continues exactly as if there
had been no interruption, without any random state in the checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, get_worker_info


def derive_seed(*parts: int) -> int:
    """A 32-bit seed from non-negative integers; different tuples give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def set_seed(seed: int) -> None:
    """Seed ``random``, ``numpy.random`` and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


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


class EpochSampler(Sampler):
    """Yields a rank's (epoch, index) in an order that only (seed, epoch) decides.

    The order is cut into batches of all ranks together, of which every rank takes its share, so
    that each step sees the same samples with any number of processes. An incomplete last batch is
    dropped if there is a full one, else filled up from the beginning.

    Args:
        length: Number of samples.
        batch_size: Samples of a batch, all ranks together; a multiple of ``world_size``.
        seed: Of the run.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.skipped = (-1, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def skip(self, epoch: int, batches: int) -> None:
        """Leave out the first batches of an epoch, which an interrupted run has seen."""
        self.skipped = (epoch, batches)

    @property
    def share(self) -> int:
        """Samples of a batch that this rank takes, full batches provided."""
        return self.batch_size // self.world_size

    def __len__(self) -> int:
        """Samples of this rank in a whole epoch."""
        batches = self.length // self.batch_size
        if batches == 0:  # a single batch, as evenly as it goes
            return -(-self.length // self.world_size)
        return batches * self.share

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = np.resize(generator.permutation(self.length), len(self) * self.world_size)
        start = self.skipped[1] * self.batch_size if self.skipped[0] == self.epoch else 0
        for index in order[start + self.rank :: self.world_size]:
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
        with preserved_random() if get_worker_info() is None else nullcontext():
            seed = derive_seed(self.seed, epoch, index)
            random.seed(seed)
            np.random.seed(seed)
            torch.default_generator.manual_seed(seed)
            return self.dataset[index]
