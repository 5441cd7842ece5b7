"""FAIRS' training story: extreme points and corrective clicks as one soft focus map, dual attention (Shahin et al.)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from datamodules.batch import Batch
from datamodules.clicks.guidance import Guidance
from datamodules.clicks.points import Points
from lightning_modules.metrics.masks import crop_iou
from lightning_modules.networks.deeplab import outputs
from lightning_modules.networks.first_weights import FIRST_WEIGHTS
from lightning_modules.schedules import Constant, backbone_and_head, stepped


class FAIRS(LightningModule):
    """Focus and Attention for Interactive Robust Segmentation: RGB and one soft focus map in, the object's mask out.

    The soft focus is an n-ellipse map: highest where the distances to the extreme points sum to the least, which is
    inside of the object more likely than not, and cut to their box; clicks are drawn into it (`soft_focus`).

    The map has one channel for any number of extreme points and corrective clicks; those of training are simulated
    from the mask alone (Sec. 4.5), so that a step is one pass.

    Args:
        network: `forward(input (B, 3 + G, H, W)) -> logits (B, 1, H, W)`, or a list of them, the prediction first: each
            is a term of the loss (Sec. 4.1: the fused, the position and the channel attention). Its `backbone` is one
            parameter group, all else the other.
        guidance: encodes the points; the soft focus, or DEXTR's Gaussians in the ablation (Table 1).
        loss: `forward(logits, mask, void, counts)` of one term; terms weigh alike and are summed.
        optimizer: called with parameter groups. SGD with momentum, of which the paper gives no values.
        head_lr_factor: the head learns this much faster. The paper does not say; its rate is ten times DEXTR's already.
        schedule: of the learning rate.
        image_mean, image_std: the network sees (image - mean) / std of 0..255 values.
        guidance_scale: the map's range; the paper's map is in [0, 1], DEXTR's 255 goes with images of 0..255.
    """

    behaviour = 1  # raise when a fix changes results: runs made before are then made again
    training_only: ClassVar[tuple[str, ...]] = ("loss", "optimizer", "head_lr_factor", "schedule")
    starts: ClassVar[Mapping[str, str]] = FIRST_WEIGHTS

    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        guidance: Guidance,
        loss: nn.Module,
        optimizer: Callable[[Any], torch.optim.Optimizer],
        head_lr_factor: float = 1.0,
        schedule: Callable[[float], float] | None = None,
        image_mean: float | list[float] = 0.0,
        image_std: float | list[float] = 1.0,
        guidance_scale: float = 255.0,
    ) -> None:
        super().__init__()
        self.network, self.guidance, self.loss = network, guidance, loss
        self.optimizer = optimizer
        self.head_lr_factor = head_lr_factor
        self.schedule = schedule or Constant()
        self.guidance_scale = guidance_scale
        self.register_buffer("image_mean", torch.as_tensor(image_mean).float().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.as_tensor(image_std).float().view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor, points: Points) -> list[Tensor]:
        """Crops (B, 3, H, W) of 0..255 and clicks in crop pixels -> logits (B, 1, H, W), the prediction first."""
        seen = (image.float() - self.image_mean) / self.image_std
        focus = self.guidance_scale * self.guidance(points, (image.shape[-2], image.shape[-1]))
        return outputs(self.network(torch.cat([seen, focus], dim=1)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One pass; the terms of the loss have equal weights."""
        terms = [
            self.loss(logits, batch.mask, batch.void, batch.window_counts) for logits in self(batch.image, batch.clicks)
        ]
        loss = torch.stack(terms).sum()
        self.log("train/loss", loss, batch_size=len(batch), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Progress on the crop's grid; tables are made from rows, pasted into the full image."""
        iou = crop_iou(self(batch.image, batch.clicks)[0] > 0, batch.mask, batch.void)
        self.log("val/iou_crop", iou.mean(), batch_size=len(batch), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The head at `head_lr_factor` times the rate; the schedule is stepped after each update."""
        optimizer = backbone_and_head(self.optimizer, self.network, self.head_lr_factor)
        return stepped(optimizer, self.schedule, self.trainer)

    def start(self, image: Tensor, points: Points) -> Tensor:
        """Nothing can be computed before the clicks, which enter at the first layer: the state is the image."""
        return image

    def predict(self, state: Tensor, points: Points, previous_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, 1, H, W) of all clicks so far."""
        return self(state, points)[0], state
