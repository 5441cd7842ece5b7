"""What watches a training: keyed randomness, checkpoints, one line of progress."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from datamodules.files import remove_partial, whole_file
from datamodules.keys import seed_of
from experiments.console import duration
from experiments.runs.environment import is_rank_zero

PACED, FAR = 6, 3.0  # steps until a pace is known; how many times longer than promised is worth a note
STEP = 0x57E9  # keeps the draws of training steps apart from those of the data


class KeyedSteps(Callback):
    """Before each step, PyTorch's generator is a function of (seed, step, process): resuming changes no draw."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Key this step's draws (dropout and the like)."""
        step = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx
        torch.manual_seed(seed_of(self.seed, step, trainer.global_rank, STEP))


class FiniteLoss(Callback):
    """Ends a training whose loss is no number, before such a loss changes the weights or a checkpoint holds them.

    On a GPU it is looked at every few steps, since looking waits for the device; the first bad step is known then, too.
    """

    def __init__(self, look_every: int = 20) -> None:
        self.look_every, self._calls = look_every, 0
        self._first: torch.Tensor | None = None  # (step, loss) of the first loss that was no number; step -1 without

    def on_before_backward(self, trainer: Trainer, module: LightningModule, loss: torch.Tensor) -> None:
        """Remember the first loss of a pass that is no number."""
        now = torch.stack([loss.new_full((), trainer.global_step + 1, dtype=torch.float32), loss.detach().float()])
        before = now.new_tensor([-1.0, 0.0]) if self._first is None else self._first
        self._first = torch.where((before[0] < 0) & ~torch.isfinite(now[1]), now, before)
        self._calls += 1
        if self.due(loss):
            self._look(trainer)

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """No checkpoint after a bad step."""
        self._look(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """The last steps, and the weights that they left. Raises ValueError for one that is no number."""
        self._look(trainer)
        for name, weight in module.state_dict().items():
            if not bool(torch.isfinite(weight).all()):
                raise ValueError(f"after step {trainer.global_step} {name} is not finite: {_lower(trainer)}")

    def due(self, loss: torch.Tensor) -> bool:
        """Whether to look at once: on a CPU always, elsewhere a look waits for the device."""
        return loss.device.type == "cpu" or self._calls % self.look_every == 0

    def _look(self, trainer: Trainer) -> None:
        if self._first is not None and (step := int(self._first[0])) >= 0:
            raise ValueError(
                f"the loss is {float(self._first[1])} at step {step} of {int(trainer.estimated_stepping_batches)}: "
                f"{_lower(trainer)}"
            )


def _lower(trainer: Trainer) -> str:
    rates = sorted({group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups})
    exact = "" if trainer.precision == "32-true" else f", or write trainer.precision=32-true (now {trainer.precision})"
    return f"training ends without a record; lower model.optimizer.lr (it is {rates[-1]:.3g} here){exact}"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints appear whole: written beside their place, then renamed. A kill or a full disk leaves the last one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        """Write, then rename; a partial file is removed when writing fails, and what killed ones left before."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partial(path)
        try:
            with whole_file(path) as partial:
                torch.save(checkpoint, partial)
        except RuntimeError as error:  # PyTorch's answer to a full disk
            raise OSError(f"{path} could not be written: {error}") from error


def whole_checkpoint(path: Path) -> Path | None:
    """The checkpoint to go on from; None where there is none.

    One that cannot be read, which runs nothing, is put aside, and that is said: the training begins anew.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if {"state_dict", "optimizer_states", "loops"} <= set(checkpoint):
            return path
        reason = "it holds no training's state"
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a garbled file makes of its reader
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if is_rank_zero() and path.exists():
        path.replace(path.with_name(f"{path.name}.damaged"))
        print(f"note: {path} cannot be read ({reason}), put aside; training begins anew", file=sys.stderr, flush=True)
    return None


class StepCheckpoint(ModelCheckpoint):
    """Never between the passes of an accumulated step: their gradients are not in a checkpoint.

    Nor after the last step, whose metrics go into the record: who goes on from a checkpoint makes it again.
    """

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time and the optimiser has just stepped."""
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and trainer.global_step < trainer.estimated_stepping_batches:
            super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)


def checkpoints(folder: Path, minutes: float) -> ModelCheckpoint:
    """`last.ckpt` in `folder`, written anew every few minutes: what a killed run continues from."""
    return StepCheckpoint(
        folder,
        filename="last",
        save_top_k=1,
        monitor=None,
        enable_version_counter=False,
        train_time_interval=timedelta(minutes=minutes),
    )


class Progress(Callback):
    """One line: epoch, loss, what is left. Rewritten in a terminal, every `seconds` in a log file.

    After a few steps it says how long the training will take in all where that is far from what its profile promises.

    Args:
        title: of the training.
        promise: `minutes` of a training and `on` which machine; None where the profile promises nothing.
        seconds: between two lines of a log file.
    """

    def __init__(self, title: str, promise: Mapping[str, Any] | None = None, seconds: float = 15.0) -> None:
        self.title, self.promise, self.seconds = title, promise, seconds
        self._started = self._shown = self._paced_since = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Remember when and where this process began."""
        self._started, self._shown, self._first_step = time.monotonic(), 0.0, trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the line when it is time."""
        now = time.monotonic()
        if trainer.global_step - self._first_step == 1:
            self._paced_since = now  # the first step also prepares
        self._compare(trainer, now)
        if not trainer.is_global_zero or now - self._shown < (0.5 if sys.stderr.isatty() else self.seconds):
            return
        self._shown = now
        steps, done = int(trainer.estimated_stepping_batches), trainer.global_step
        left = (now - self._started) / max(1, done - self._first_step) * (steps - done)
        loss = trainer.callback_metrics.get("train/loss")
        shown = "" if loss is None else f", loss {float(loss):.4g}"
        of = f"/{trainer.max_epochs}" if trainer.max_epochs != -1 else ""
        epoch = f"epoch {trainer.current_epoch + 1}{of}"
        line = f"{self.title}: {epoch}, step {done}/{steps}{shown}, {duration(left)} left"
        end = "\r" if sys.stderr.isatty() else "\n"
        print(f"  {line:<100}", end=end, file=sys.stderr, flush=True)

    def _compare(self, trainer: Trainer, now: float) -> None:
        """Once, when the steps have found their pace: the projected time beside the promised one."""
        done = trainer.global_step - self._first_step
        if self.promise is None or not trainer.is_global_zero or done != PACED:
            return
        whole = (now - self._paced_since) / (PACED - 1) * int(trainer.estimated_stepping_batches)
        if whole > FAR * 60 * self.promise["minutes"]:
            print(
                f"note: {self.title} will take about {duration(whole)} at this pace; its profile promises about "
                f"{duration(60 * self.promise['minutes'])} on {self.promise['on']}",
                file=sys.stderr,
                flush=True,
            )

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Close the line."""
        if trainer.is_global_zero:
            took = duration(time.monotonic() - self._started)
            print(f"  {self.title}: trained {trainer.global_step} steps in {took}{'':<60}", file=sys.stderr, flush=True)
