"""What DataModules share that train on an endless, keyed order: how a global batch splits, and how training resumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning import LightningDataModule, Trainer


class TrainingStream(LightningDataModule):
    """A DataModule whose training data are one stream: `batch_size` counts over all processes and accumulated passes.

    Its state is one integer.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self._consumed = 0

    def state_dict(self) -> dict[str, int]:
        """How many passes of this process' endless stream training has consumed: all that is needed to go on.

        Lightning asks for it after a batch, before it counts the epoch that the batch may have ended.
        """
        loop: Any = self._attached().fit_loop
        epochs, passes = loop.epoch_progress.current.processed, loop.epoch_loop.batch_progress.current.ready
        return {"consumed": epochs * int(loop.max_batches) + passes}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue where the checkpoint was written, on as many processes."""
        self._consumed = state["consumed"]

    def _share(self) -> dict[str, int]:
        """What a TrainingSampler must know of this process' part of each batch.

        Raises ValueError, with what to do, for a batch that does not split.
        """
        trainer = self._attached()
        processes, accumulated = trainer.world_size, trainer.accumulate_grad_batches
        if self.batch_size % (processes * accumulated):
            divisors = ", ".join(str(n) for n in range(1, self.batch_size + 1) if self.batch_size % n == 0)
            raise ValueError(
                f"data.batch_size {self.batch_size} does not split over {processes} processes x {accumulated} "
                f"accumulated passes; their product can be {divisors}: set "
                "trainer.devices and trainer.accumulate_grad_batches so"
            )
        return {
            "batch_size": self.batch_size,
            "micro_batch": self.batch_size // (processes * accumulated),
            "rank": trainer.global_rank,
            "processes": processes,
            "consumed": self._consumed,
        }

    def _attached(self) -> Trainer:
        """The trainer that asks; its hooks are called once there is one."""
        if self.trainer is None:
            raise RuntimeError("data are loaded for a trainer, got none; hand this object to Trainer.fit")
        return self.trainer
