"""DEXTR's training story: four extreme points, one guidance map, one pass (Maninis et al., CVPR 2018)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from datamodules.batch import Batch
from datamodules.clicks.guidance import Guidance
from datamodules.clicks.points import EXTREME_KINDS, PointKind, Points
from datamodules.clicks.rules import boundary_error
from datamodules.keys import rng
from datamodules.objects import class_counts
from lightning_modules.corrections import Seen, appended, as_tested
from lightning_modules.metrics.masks import crop_iou
from lightning_modules.networks.first_weights import FIRST_WEIGHTS
from lightning_modules.networks.region import RegionNet, inside_regions, region_edges
from lightning_modules.schedules import Constant, backbone_and_head, stepped


class DEXTR(LightningModule):
    """Deep Extreme Cut: RGB and a map of the extreme points in, the object's mask out.

    The network sees a crop: the object's box grown by 50 pixels of the image on each side, resized to 512 x 512.

    Args:
        network: `forward(input (B, 3 + G, H, W), regions (B, 4)) -> logits (B, 1, H, W)` with G guidance channels; its
            `backbone` is one parameter group, all else, the head, the other.
        guidance: encodes the points; None trains on the crop alone ("bounding boxes" in Table 3).
        loss: `forward(logits, mask, void, counts)`.
        optimizer: called with parameter groups. The paper's SGD (Sec. 3.4); its rate of 0.0025 is for a mean
            over pixels, 1e-8 the same for a sum over the 512 x 512 of a crop.
        head_lr_factor: the head learns this much faster; 10 in the authors' code, not in the paper.
        schedule: of the learning rate; the authors' code keeps it constant, the paper does not say.
        relax: margin of the region around the points, in pixels of the image (used by region-based networks).
        image_mean, image_std: the network sees (image - mean) / std of 0..255 values; 0 and 1 in the authors' code.
        guidance_scale: the maps' range; 255 in the authors' code, the range of the image.
        corrections: clicks on the boundary that training adds to the extreme points, each where this network's own
            prediction so far is most wrong; the fifth point of Table 8 lies in another one's error, see `FifthPoint`.
        jitter: how far such a click is moved at most along x and y, in pixels of the crop.
    """

    behaviour = 1  # raise when a fix changes results: runs made before are then made again
    training_only: ClassVar[tuple[str, ...]] = (
        "loss",
        "optimizer",
        "head_lr_factor",
        "schedule",
        "corrections",
        "jitter",
    )
    starts: ClassVar[Mapping[str, str]] = FIRST_WEIGHTS

    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        guidance: Guidance | None,
        optimizer: Callable[[Any], torch.optim.Optimizer],
        head_lr_factor: float = 10.0,
        schedule: Callable[[float], float] | None = None,
        relax: int = 50,
        image_mean: float | list[float] = 0.0,
        image_std: float | list[float] = 1.0,
        guidance_scale: float = 255.0,
        corrections: int = 0,
        jitter: float = 10.0,
    ) -> None:
        super().__init__()
        self.network, self.guidance, self.loss = network, guidance, loss
        self.optimizer = optimizer
        self.head_lr_factor = head_lr_factor
        self.schedule = schedule or Constant()
        self.relax, self.guidance_scale = relax, guidance_scale
        self.corrections, self.jitter = corrections, jitter
        self.register_buffer("image_mean", torch.as_tensor(image_mean).float().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.as_tensor(image_std).float().view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor, points: Points) -> Tensor:
        """Crops (B, 3, H, W) of 0..255 and clicks in crop pixels -> logits (B, 1, H, W)."""
        return self.logits_of(self.network, image, points)

    def logits_of(self, network: nn.Module, image: Tensor, points: Points) -> Tensor:
        """The same by another network of this kind."""
        size = (image.shape[-2], image.shape[-1])
        channels = [(image.float() - self.image_mean) / self.image_std]
        if self.guidance is not None:
            channels.append(self.guidance_scale * self.guidance(points, size))
        logits: Tensor = network(torch.cat(channels, dim=1), regions(points, self.relax, size))
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One pass, after those that only look for corrections; void and class weights are the loss' business."""
        clicks = batch.clicks
        for number in range(self.corrections):
            clicks = self.corrected(batch, clicks, number)
        logits = self(batch.image, clicks)
        loss: Tensor = self.loss(logits, batch.mask, batch.void, self.class_counts(batch, clicks))
        self.log("train/loss", loss, batch_size=len(batch), prog_bar=True)
        return loss

    def class_counts(self, batch: Batch, clicks: Points) -> Tensor | None:
        """(3,) pixels that the class weights are taken over, see `balanced_bce`: of a region-based network its regions.

        None: the whole crops. Raises ValueError where passes are accumulated: the regions of later ones are not known.
        """
        if not isinstance(self.network, RegionNet):
            return batch.window_counts
        if batch.window_counts is not None:
            raise ValueError(
                "a region-based network weighs the classes inside of the regions of one pass: "
                "set trainer.accumulate_grad_batches to 1"
            )
        size = (batch.mask.shape[-2], batch.mask.shape[-1])
        learns = inside_regions(region_edges(regions(clicks, self.relax, size)), size)
        return class_counts(batch.mask[learns], batch.void[learns])

    @property
    def erring(self) -> nn.Module:
        """The network in whose error training clicks."""
        return self.network

    def corrected(self, batch: Batch, clicks: Points, number: int = 0) -> Points:
        """These clicks and each object's next one, padding where the prediction has no error.

        The prediction is what a user would see: the network is in eval mode, so that no batch statistics learn from it.
        """
        with as_tested(self.erring):
            seen = Seen.of(batch, clicks, self.logits_of(self.erring, batch.image, clicks))
        draws = [rng(self.trainer.global_step, int(key), number) for key in seen.object_id]
        return appended(clicks, seen.next_clicks(partial(boundary_error, jitter=self.jitter), draws))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Progress on the crop's grid; tables are made from rows, pasted into the full image."""
        logits = self(batch.image, batch.clicks)
        iou = crop_iou(logits > 0, batch.mask, batch.void)
        self.log("val/iou_crop", iou.mean(), batch_size=len(batch), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The head's parameters at `head_lr_factor` times the rate; the schedule is stepped after each update."""
        optimizer = backbone_and_head(self.optimizer, self.network, self.head_lr_factor)
        return stepped(optimizer, self.schedule, self.trainer)

    def start(self, image: Tensor, points: Points) -> Tensor:
        """Nothing can be computed before the clicks, which enter at the first layer: the state is the image."""
        return image

    def predict(self, state: Tensor, points: Points, previous_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, 1, H, W) of all clicks so far."""
        return self(state, points), state


class FifthPoint(DEXTR):
    """DEXTR that learns from a fifth point in the error of an earlier model, and is asked after it (Sec. 3.3, Table 8).

    Table 8: a first model learns from half of the training images with four points and is run on the other half, where
    11 % of the objects stay below an IoU of 0.8. These are hard. Its arms go on from the first model: with four points
    and the hard objects added ("4 points-all"), with five points on all of the second half ("5 points"), and with five
    points on its hard objects alone ("+ OHEM"). All are tested on the objects of PASCAL val that the first finds hard.

    The fifth point lies in the first model's error: what learns from five points is not what it corrects. So in
    training and at test the earlier model answers the extreme points, and this network once there is a correction. An
    object on which the earlier one makes no error keeps its mask at test, and teaches with four points.

    Args are those of `DEXTR`, with corrections 1. The earlier model is a finished run of the same network, in the role
    `corrects`.
    """

    takes: ClassVar[Mapping[str, str]] = {"corrects": "earlier"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.corrections != 1:
            raise ValueError(f"a fifth point is one click: model.corrections is 1, got {self.corrections}")
        self.earlier = copy.deepcopy(self.network).requires_grad_(False).eval()

    @property
    def erring(self) -> nn.Module:
        """The earlier model's network."""
        return self.earlier

    def predict(self, state: Tensor, points: Points, previous_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, 1, H, W): of the earlier model for objects without a correction, of this one for the others."""
        further = points.of(PointKind.POSITIVE, PointKind.NEGATIVE).valid.any(1)
        if further.all():
            return self(state, points), state
        first = self.logits_of(self.earlier, state, points)
        if not further.any():
            return first, state
        return torch.where(further[:, None, None, None], self(state, points), first), state


def regions(points: Points, relax: float, size: tuple[int, int]) -> Tensor:
    """(B, 4) xyxy in crop pixels: the box of each object's extreme points, grown by `relax` image pixels, in the crop.

    An object without extreme points has the whole crop; a corrective click widens no box.
    """
    points = points.of(*EXTREME_KINDS)
    height, width = size
    corner = points.xy.new_tensor([width - 1.0, height - 1.0])
    whole = torch.cat([torch.zeros_like(corner), corner]).expand(len(points.xy), 4)
    if points.xy.shape[1] == 0:
        return whole
    margin = relax * points.scale.to(points.xy)  # (B, 2), image pixels as crop pixels
    valid = points.valid[..., None]
    low = points.xy.masked_fill(~valid, float("inf")).amin(1) - margin
    high = points.xy.masked_fill(~valid, -float("inf")).amax(1) + margin
    inside = torch.cat([low.clamp_min(0).minimum(corner), high.clamp_min(0).minimum(corner)], dim=1)
    return torch.where(points.valid.any(1, keepdim=True), inside, whole)
