"""Optimisers and their rates; a schedule is a function of progress: `schedule(done)`, done in [0, 1], is a factor."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import nn

Schedule = Callable[[float], float]


class Constant:
    """The rate as it is: DEXTR's released code."""

    def __call__(self, done: float) -> float:
        """1."""
        return 1.0


class Poly:
    """(1 - done) ** power, the DeepLab policy, after a linear warm-up over the first `warmup` of the steps."""

    def __init__(self, power: float = 0.9, warmup: float = 0.0) -> None:
        self.power, self.warmup = power, warmup

    def __call__(self, done: float) -> float:
        """Factor at this progress."""
        if done < self.warmup:
            return min(1.0, max(done, 1e-3) / self.warmup)
        return float((1 - (done - self.warmup) / (1 - self.warmup)) ** self.power) if done < 1 else 0.0


class Cosine:
    """Half a cosine from 1 to `floor` (0.2 in MAL) after a linear warm-up over the first `warmup` of the steps."""

    def __init__(self, warmup: float = 0.0, floor: float = 0.0) -> None:
        self.warmup, self.floor = warmup, floor

    def __call__(self, done: float) -> float:
        """Factor at this progress."""
        if done < self.warmup:
            return min(1.0, max(done, 1e-3) / self.warmup)
        if self.warmup == 1:  # nothing follows the warm-up
            return 1.0
        fallen = 0.5 * (1 + math.cos(math.pi * min(1.0, (done - self.warmup) / (1 - self.warmup))))
        return self.floor + (1 - self.floor) * fallen


class Steps:
    """Piecewise constant: `factors[i]` until `at[i]` of the steps are done, and the last factor from there on."""

    def __init__(self, at: list[float], factors: list[float]) -> None:
        if len(factors) != len(at) + 1 or sorted(at) != list(at):
            raise ValueError(f"Steps need ascending places and one factor more than places, got {at} and {factors}")
        self.at, self.factors = at, factors

    def __call__(self, done: float) -> float:
        """Factor at this progress."""
        return self.factors[bisect_right(self.at, done)]


class Warmup:
    """What a rate is multiplied by in its first `steps`: from `start` in a straight line to 1, by optimiser steps.

    Detectors count their warm-up in steps, whatever the length of a training, and go on with the schedule meanwhile.
    """

    def __init__(self, steps: int = 500, start: float = 1e-3) -> None:
        if steps < 0 or not 0 <= start <= 1:
            raise ValueError(f"a warm-up takes 0 or more steps, from 0 to 1 of the rate, got {steps} from {start}")
        self.steps, self.start = steps, start

    def __call__(self, step: int) -> float:
        """Factor after so many steps."""
        return 1.0 if step >= self.steps else self.start + (1 - self.start) * step / self.steps


def backbone_and_head(
    optimizer: Callable[[Any], torch.optim.Optimizer], network: nn.Module, head_lr_factor: float
) -> torch.optim.Optimizer:
    """Two groups of what is trained: the network's `backbone`, and all else at `head_lr_factor` times the rate."""
    backbone = network.get_submodule("backbone")
    known = {id(p) for p in backbone.parameters()}
    head = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
    made = optimizer([{"params": [p for p in backbone.parameters() if p.requires_grad]}, {"params": head}])
    made.param_groups[1]["lr"] *= head_lr_factor
    return made


def stepped(
    optimizer: torch.optim.Optimizer, schedule: Schedule, trainer: Trainer, warmup: Warmup | None = None
) -> dict[str, Any]:
    """What `configure_optimizers` returns for a schedule that follows the optimiser's steps."""
    steps, risen = trainer.estimated_stepping_batches, warmup or Warmup(0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step / steps) * risen(step))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
