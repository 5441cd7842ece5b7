"""ITIS' training story: positive and negative clicks, added where the network itself was wrong (BMVC 2018)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from datamodules.batch import Batch
from datamodules.clicks.guidance import Guidance
from datamodules.clicks.mask_distance import MaskDistance
from datamodules.clicks.points import Points
from datamodules.clicks.rules import RULES
from lightning_modules.corrections import Seen, appended, as_tested
from lightning_modules.iterative import FreshClicks
from lightning_modules.metrics.masks import crop_iou
from lightning_modules.networks.first_weights import FIRST_WEIGHTS
from lightning_modules.schedules import Constant, stepped

VALIDATION_CLICKS = 5


class ITIS(LightningModule):
    """Iteratively trained interactive segmentation: RGB, maps of the clicks, optionally the last mask in; a mask out.

    The network's input is on the range [-1, 1] throughout, in the released code's order: RGB, the mask channel where
    there is one, negative clicks, positive clicks.

    Args:
        network: `forward(input (B, C, H, W)) -> logits (B, 2, H, W)`, background and object.
        guidance: encodes the clicks, one map per sign.
        loss: `forward(logits, mask, void)` on the two-class logits.
        optimizer: called with the parameters. Adam (Sec. 4.2).
        iteration: where training clicks come from: `FreshClicks`, `EpochMemory` (the paper), `WithinBatch` (RITM's).
        mask_channel: encodes the last mask; None for segmentation from scratch, where it brings nothing (Sec. 3).
        schedule: of the learning rate.
    """

    behaviour = 1  # raise when a fix changes results: runs made before are then made again
    training_only: ClassVar[tuple[str, ...]] = ("loss", "optimizer", "schedule", "iteration")
    starts: ClassVar[Mapping[str, str]] = FIRST_WEIGHTS

    def __init__(
        self,
        network: nn.Module,
        guidance: Guidance,
        loss: nn.Module,
        optimizer: Callable[[Any], torch.optim.Optimizer],
        iteration: FreshClicks | None = None,
        mask_channel: MaskDistance | None = None,
        schedule: Callable[[float], float] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.guidance, self.loss = network, guidance, loss
        self.optimizer = optimizer
        self.schedule = schedule or Constant()
        self.mask_channel = mask_channel
        self.iteration = iteration or FreshClicks()

    def forward(self, image: Tensor, points: Points, masks: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W) of 0..255, clicks in their pixels, last masks (B, 1, H, W) -> logits (B, 2, H, W)."""
        size = (image.shape[-2], image.shape[-1])
        channels = [image.float() / 255]
        if self.mask_channel is not None:
            channels.append(self.mask_channel(masks, len(image), size, image.device))
        channels.append(self.guidance(points, size))
        logits: Tensor = self.network(2 * torch.cat(channels, dim=1) - 1)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One forward pass; the next click, for another epoch, comes from the errors of this same pass."""
        start = self.iteration.before(batch, self.current_epoch, batch_idx, self.segment)
        logits = self(batch.image, start.points, start.masks)
        loss: Tensor = self.loss(logits, batch.mask, batch.void)
        self.iteration.after(batch, start, margin(logits), self.current_epoch)
        clicks = start.points.valid.sum(1).float().mean()
        self.log_dict({"train/loss": loss, "train/clicks": clicks}, batch_size=len(batch), prog_bar=True)
        return loss

    def segment(self, image: Tensor, points: Points, masks: Tensor | None = None) -> Tensor:
        """One logit (B, 1, H, W) per pixel as the trained network would give it, in the middle of a training step."""
        with as_tested(self.network):
            return margin(self(image, points, masks))

    def on_train_epoch_end(self) -> None:
        """Another process may see an object next: exchange what was learned."""
        self.iteration.gather()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The memory of all processes; Lightning calls this on each of them."""
        self.iteration.gather()
        checkpoint["iteration"] = self.iteration.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """On any number of processes."""
        self.iteration.load_state_dict(checkpoint["iteration"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """A few clicks of the paper's rule on the crop's grid: progress only, the benchmark makes the tables."""
        points = batch.clicks
        state, mask = self.start(batch.image, points), None
        for click in range(1, VALIDATION_CLICKS + 1):
            prediction = torch.full_like(batch.mask, -1.0, dtype=torch.float32) if mask is None else mask - 0.5
            points = appended(points, Seen.of(batch, points, prediction).next_clicks(RULES["itis"]))
            logits, state = self.predict(state, points, mask)
            mask = (logits > 0).float()
            if click in (1, VALIDATION_CLICKS):
                iou = crop_iou(mask, batch.mask, batch.void).mean()
                self.log(f"val/iou_crop_{click}", iou, batch_size=len(batch), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """One learning rate for all parameters; the schedule is stepped after each update."""
        optimizer = self.optimizer([p for p in self.network.parameters() if p.requires_grad])
        return stepped(optimizer, self.schedule, self.trainer)

    def start(self, image: Tensor, points: Points) -> State:
        """Everything but the clicks, drawn once per object; `predict` adds them as they come."""
        size = (image.shape[-2], image.shape[-1])
        channels = self.guidance.channels + (0 if self.mask_channel is None else 1)
        seen = image.new_zeros((len(image), 3 + channels, *size), dtype=torch.float32)
        seen[:, :3] = image.float() / 127.5 - 1
        return State(seen, self.guidance.blank(len(image), size, image.device), 0)

    def predict(self, state: State, points: Points, previous_mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Logits (B, 1, H, W) of all clicks so far; only those behind the last call's are drawn.

        The state's maps are drawn into: a state can be gone on from once.
        """
        if self.mask_channel is not None:
            size = (state.input.shape[-2], state.input.shape[-1])
            channel = self.mask_channel(previous_mask, len(state.input), size, state.input.device)
            state.input[:, 3:4] = 2 * channel - 1
        maps = self.guidance.add(state.maps, points.since(state.clicks))
        torch.mul(maps, 2, out=state.input[:, -self.guidance.channels :]).sub_(1)
        logits = margin(self.network(state.input))
        return logits, State(state.input, maps, points.xy.shape[1])


@dataclass
class State:
    """What `start` and `predict` keep of a batch of objects: the network's input, its click maps, and their clicks."""

    input: Tensor  # (B, C, H, W) on the range [-1, 1]
    maps: Tensor  # (B, 2, H, W) of 0..1
    clicks: int


def margin(logits: Tensor) -> Tensor:
    """Two-class logits (B, 2, H, W) as one (B, 1, H, W): above 0 where the object wins; ties are background."""
    return logits[:, 1:].float() - logits[:, :1].float()
