"""A teacher that follows its student: the exponential moving average of its weights, kept by a callback."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn


class Averaging(Callback):
    """Moves the module's `teacher` a little towards its `network` after every step of the optimiser.

    Before the first step of a training the teacher becomes a copy of the student. MAL's begins with a decoder and a
    stem of its own, random ones, so that it says nothing for about a thousand steps. A training that goes on from a
    checkpoint keeps the teacher that lies in it: it is a part of the module, and `averaged` counts its steps.

    Weights are averaged, as published; statistics of batch norm, which MAL has none of, are the student's.

    Args:
        momentum: what is left of the teacher in a step; 0.996 in MAL, without a schedule.
    """

    def __init__(self, momentum: float = 0.996) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"a teacher's momentum is at least 0 and below 1, got {momentum}")
        self.momentum = momentum
        self._steps = 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """A copy of the student, where this teacher has not learned yet."""
        self._steps = trainer.global_step
        if int(_averaged(module)) == 0:
            _teacher(module).load_state_dict(_student(module).state_dict())

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step of the average, after the last of the passes that make up the optimiser's."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        _averaged(module).add_(1)
        follow(_teacher(module), _student(module), self.momentum)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, of all weights at once; buffers are copied."""
    theirs: list[torch.Tensor] = list(teacher.parameters())
    own = list(student.parameters())
    torch._foreach_lerp_(theirs, [weight.to(mean.dtype) for weight, mean in zip(own, theirs)], 1 - momentum)
    for mean, now in zip(teacher.buffers(), student.buffers()):
        mean.copy_(now)


def _teacher(module: LightningModule) -> nn.Module:
    return module.get_submodule("teacher")


def _student(module: LightningModule) -> nn.Module:
    return module.get_submodule("network")


def _averaged(module: LightningModule) -> torch.Tensor:
    return module.get_buffer("averaged")
