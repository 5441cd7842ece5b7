"""Which object or image comes when: a pure function of (seed, epoch, position), whose only state is one integer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from datamodules.keys import rng

ORDER = 0x0D5E  # keeps the order's draws apart from those of samples
REPEATS = 0x4EA7
Rounding = Literal["up", "stochastic"]


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

    def __iter__(self) -> Iterator[Any]:
        return ((self.epoch, int(i)) for i in self._mine(self._whole_epoch()))

    def order(self) -> NDArray[np.int64]:
        """What this epoch walks through."""
        return epoch_order(self.size, self.seed, self.epoch)

    def _whole_epoch(self) -> NDArray[np.int64]:
        """Of all processes: the first so many of the order that fill its batches, or all of it again and again."""
        return np.resize(self.order(), self.batches * self.batch_size)

    def _mine(self, epoch: NDArray) -> NDArray:
        """Of an epoch of all processes what comes to this one and has not been consumed."""
        mine = epoch.reshape(-1, self.processes, self.micro_batch)[:, self.rank].ravel()
        skip = max(0, self.consumed - self.epoch * self.passes) * self.micro_batch
        return mine[min(skip, len(mine)) :]


class ImageSampler(TrainingSampler):
    """Yields (epoch, image, copy): an image that comes again in an epoch is another copy, drawn anew.

    With `factors`, repeat-factor sampling: an epoch is one pass over a list in which an image of factor r stands r
    times, r rounded `up` (mmdetection) or at random for each epoch (`stochastic`, keyed by seed and epoch). Epochs are
    equally long: of a longer draw the last in the order wait, of a shorter one the first come again.

    Args:
        images: how many there are.
        factors: (images,) how often each is to come in an epoch, at least once; None for once each.
        rounding: see above.
        share: arguments of TrainingSampler.
    """

    def __init__(
        self, images: int, factors: NDArray | None = None, rounding: Rounding = "up", seed: int = 0, **share: int
    ) -> None:
        self.factors = None if factors is None else np.ceil(factors) if rounding == "up" else np.asarray(factors)
        size = images if self.factors is None else round(float(self.factors.sum()))
        super().__init__(size, seed=seed, **share)

    def order(self) -> NDArray[np.int64]:
        if self.factors is None:
            return super().order()
        listed = np.repeat(np.arange(len(self.factors)), self.repeats())
        return listed[epoch_order(len(listed), self.seed, self.epoch)]

    def repeats(self) -> NDArray[np.int64]:
        """(images,) how often each comes in this epoch's list."""
        if self.factors is None:
            return np.ones(self.size, np.int64)
        whole = np.floor(self.factors)
        more = rng(self.seed, self.epoch, REPEATS).random(len(whole)) < self.factors - whole
        return (whole + more).astype(np.int64)

    def __iter__(self) -> Iterator[Any]:
        images = self._whole_epoch()
        keys = zip(self._mine(images).tolist(), self._mine(copies(images)).tolist())
        return ((self.epoch, image, copy) for image, copy in keys)


def copies(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each value (n,) came before in this order."""
    order = np.argsort(values, kind="stable")
    grouped = values[order]
    starts = np.flatnonzero(np.diff(grouped, prepend=-1))
    found = np.empty(len(values), np.int64)
    found[order] = np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))
    return found


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
