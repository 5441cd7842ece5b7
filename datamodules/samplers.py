"""Which object comes when: a pure function of (seed, epoch, position), whose only state is one integer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from datamodules.keys import rng

ORDER = 0x0D5E  # keeps the order's draws apart from those of samples


def epoch_order(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The permutation of 0..size-1 that this epoch walks through."""
    return rng(seed, epoch, ORDER).permutation(size)


class TrainingSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, object) for this process; every process takes its share of each *global* batch.

    The global batch of step s is the same objects on 1, 2 or 4 processes and with or without gradient accumulation.
    The last objects of an epoch that do not fill a global batch wait for another epoch's order; fewer objects than one
    such batch come more than once in it.

    Args:
        size: objects, at least one.
        batch_size: objects per optimiser step over all processes.
        micro_batch: objects per forward pass of one process; `processes * micro_batch` divides `batch_size`.
        consumed: forward passes already done when training resumes; they are skipped.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        micro_batch: int,
        rank: int = 0,
        processes: int = 1,
        seed: int = 0,
        consumed: int = 0,
    ) -> None:
        if batch_size % (processes * micro_batch):
            raise ValueError(
                f"a global batch of {batch_size} does not split over {processes} processes of {micro_batch} objects"
            )
        if not size:
            raise ValueError("there is no object to train on")
        self.size = size
        self.batch_size = batch_size
        self.micro_batch = micro_batch
        self.rank = rank
        self.processes = processes
        self.seed = seed
        self.consumed = consumed
        self.epoch = 0

    @property
    def passes(self) -> int:
        """Forward passes of this process per epoch."""
        return self.batches * (self.batch_size // (self.processes * self.micro_batch))

    @property
    def batches(self) -> int:
        """Global batches of an epoch."""
        return max(self.size // self.batch_size, 1)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.passes * self.micro_batch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = epoch_order(self.size, self.seed, self.epoch)
        full = np.resize(order, self.batches * self.batch_size)  # the first so many, or all of them again and again
        mine = full.reshape(-1, self.processes, self.micro_batch)[:, self.rank].ravel()
        skip = max(0, self.consumed - self.epoch * self.passes) * self.micro_batch
        return ((self.epoch, int(i)) for i in mine[min(skip, len(mine)) :])


class EvaluationSampler(Sampler[int]):
    """Whole batches in order, dealt out to the processes: batches hold the same objects on any number of them."""

    def __init__(self, size: int, batch_size: int, rank: int = 0, processes: int = 1) -> None:
        first = range(rank * batch_size, size, processes * batch_size) or range(1)  # Lightning allows no idle process:
        # one without a batch repeats the first, whose rows are then counted once
        self.positions = [i for start in first for i in range(start, min(start + batch_size, size))]

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)
