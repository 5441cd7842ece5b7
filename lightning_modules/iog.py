"""IOG's training story: inside and outside points, a coarse-to-fine network, side losses (Zhang et al., CVPR 2020)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from datamodules.batch import Batch
from datamodules.clicks.guidance import Guidance
from datamodules.clicks.points import PointKind, Points
from datamodules.clicks.rules import RULES
from datamodules.keys import rng
from datamodules.names import check_name
from lightning_modules.corrections import Seen, appended
from lightning_modules.metrics.masks import crop_iou
from lightning_modules.networks.deeplab import outputs
from lightning_modules.networks.first_weights import FIRST_WEIGHTS
from lightning_modules.schedules import Constant, backbone_and_head, stepped

PAUSE = 0x9A05  # keeps these draws apart from others of the same keys
FIRST_CLICKS = (PointKind.INSIDE, PointKind.OUTSIDE)


class IOG(LightningModule):
    """Inside-Outside Guidance: RGB and maps of the inside and the outside points in, a coarse-to-fine mask out.

    The user's three clicks are an inside point and two opposite corners of a loose box, whose other two corners follow.
    Corrective clicks join the maps of their side. They enter `early`, at the first layer beside RGB, or, with a network
    that has a click branch (Fig. 4c), `late`: its encoder sees the first clicks alone, and runs once per object.

    Args:
        network: `forward(input (B, 3 + G, H, W)) -> logits (B, 1, H, W)`, or a list of them, the prediction first and
            then those of the side losses, coarsest first; `encode` and `decode` if it has `click_channels`. Its
            `backbone` is one parameter group, all else the other.
        guidance: encodes the points on the range of the image, 0..255; None for RGB alone (Table 8, A).
        loss: `forward(logits, mask, void)`.
        optimizer: called with parameter groups. The paper's SGD (Sec. 4.1).
        head_lr_factor: what is not backbone learns this much faster; 10 in the authors' code, not in the paper.
        schedule: of the learning rate, which the authors keep constant.
        side_weight: of each side loss; 0 leaves them out (Table 3).
        last_side_factor: times that for the finest side loss; 2 in the released refinement training, a slip.
        image_mean, image_std: the network sees (image - mean) / std of 0..255 values; 0 and 1 in the authors' code,
            ImageNet's weights notwithstanding.
        guidance_scale: times the maps of 0..255, beside images of another range; 1 in the authors' code.
    """

    behaviour = 1  # raise when a fix changes results: runs made before are then made again
    training_only: ClassVar[tuple[str, ...]] = (
        "loss",
        "optimizer",
        "head_lr_factor",
        "schedule",
        "side_weight",
        "last_side_factor",
    )
    starts: ClassVar[Mapping[str, str]] = FIRST_WEIGHTS

    network: Any  # an nn.Module; with a click branch it has `encode` and `decode`, see `CoarseToFine`
    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        guidance: Guidance | None,
        loss: nn.Module,
        optimizer: Callable[[Any], torch.optim.Optimizer],
        head_lr_factor: float = 10.0,
        schedule: Callable[[float], float] | None = None,
        side_weight: float = 1.0,
        last_side_factor: float = 1.0,
        image_mean: float | list[float] = 0.0,
        image_std: float | list[float] = 1.0,
        guidance_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.network, self.guidance, self.loss = network, guidance, loss
        self.optimizer = optimizer
        self.head_lr_factor = head_lr_factor
        self.schedule = schedule or Constant()
        self.side_weight, self.last_side_factor = side_weight, last_side_factor
        self.guidance_scale = guidance_scale
        self.late = bool(getattr(network, "click_channels", 0))
        if self.late and guidance is None:
            raise ValueError("a network with a click branch needs a guidance to draw its clicks, got none")
        self.register_buffer("image_mean", torch.as_tensor(image_mean).float().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.as_tensor(image_std).float().view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor, points: Points) -> list[Tensor]:
        """Crops (B, 3, H, W) of 0..255 and clicks in crop pixels -> logits (B, 1, H, W), the prediction first."""
        return self.decode(self.encode(image, points), points)

    def encode(self, image: Tensor, points: Points) -> Any:
        """What no corrective click changes: features of RGB and the first clicks, or RGB where clicks enter early."""
        seen = (image.float() - self.image_mean) / self.image_std
        if not self.late:
            return seen
        size = (image.shape[-2], image.shape[-1])
        return size, self.network.encode(self._with_maps(seen, points.of(*FIRST_CLICKS)))

    def decode(self, encoded: Any, points: Points, sides: bool = True) -> list[Tensor]:
        """The logits of all clicks; without `sides`, late clicks cost no side outputs, which only training reads."""
        if self.guidance is None or not self.late:
            return outputs(self.network(self._with_maps(encoded, points)))
        size, features = encoded
        logits: list[Tensor] = self.network.decode(features, size, self.maps(points, size), sides)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One pass; the side losses and that of the prediction count alike."""
        loss = self.joint_loss(self(batch.image, batch.clicks), batch)
        self.log("train/loss", loss, batch_size=len(batch), prog_bar=True)
        return loss

    def joint_loss(self, logits: list[Tensor], batch: Batch) -> Tensor:
        """The prediction's loss and the weighted side losses; those of weight 0, too: DDP wants every gradient."""
        fine, *sides = [self.loss(scores, batch.mask, batch.void) for scores in logits]
        weights = [self.side_weight] * len(sides)
        weights[-1:] = [weight * self.last_side_factor for weight in weights[-1:]]
        return torch.stack([fine, *(weight * side for weight, side in zip(weights, sides))]).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Progress on the crop's grid; tables are made from rows, pasted into the full image."""
        iou = crop_iou(self(batch.image, batch.clicks)[0] > 0, batch.mask, batch.void)
        self.log("val/iou_crop", iou.mean(), batch_size=len(batch), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """All but the backbone at `head_lr_factor` times the rate; the schedule is stepped after each update."""
        optimizer = backbone_and_head(self.optimizer, self.network, self.head_lr_factor)
        return stepped(optimizer, self.schedule, self.trainer)

    def start(self, image: Tensor, points: Points) -> Any:
        """Everything that is computed once per object."""
        return self.encode(image, points)

    def predict(self, state: Any, points: Points, previous_mask: Tensor | None = None) -> tuple[Tensor, Any]:
        """Logits (B, 1, H, W) of all clicks so far."""
        return self.decode(state, points, sides=False)[0], state

    def _with_maps(self, image: Tensor, points: Points) -> Tensor:
        if self.guidance is None:
            return image
        return torch.cat([image, self.maps(points, (image.shape[-2], image.shape[-1]))], dim=1)

    def maps(self, points: Points, size: tuple[int, int]) -> Tensor:
        """What is drawn of the clicks, (B, G, H, W), on the scale that the network sees."""
        if self.guidance is None:
            raise ValueError("a network of RGB alone is shown no clicks")
        drawn: Tensor = self.guidance(points, size)
        return drawn if self.guidance_scale == 1 else drawn * self.guidance_scale


class IterativeIOG(IOG):
    """IOG trained for refinement (Sec. 3.3): predict, click where that is most wrong, predict again; learn from all.

    A click carries no gradient; both predictions do, through the encoder that they share where clicks enter late.

    Args:
        rounds: corrective clicks of a step; the authors' code has one.
        pause: in a round an object gains no click with this probability; 0 in the authors' code. There all objects of a
            batch have as many clicks, whose effect on the mean logit batch norm hides: trained like that, small
            networks lose their objects after two further clicks (IoU 74 -> 16 % from the 4th to the 8th).
        rule: of the click, see `rules.RULES`: `iog`, the centre of the thickest error, or `iog_code`, which looks
            the click's sign up at the transposed pixel.
        good_enough: no further click once the batch's mean IoU is this high; 0.95 in the authors' code. None, as in the
            paper: never enough.
        others: of `IOG`.
    """

    training_only: ClassVar[tuple[str, ...]] = (*IOG.training_only, "rounds", "pause", "rule", "good_enough")

    def __init__(
        self,
        *args: Any,
        rounds: int = 1,
        pause: float = 0.0,
        rule: str = "iog",
        good_enough: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_name(rule, RULES, "no click rule")
        if not 0 <= pause < 1:
            raise ValueError(f"pause is the probability of no click, from 0 to below 1, got {pause}")
        self.rounds = rounds
        self.pause = pause
        self.rule = rule
        self.good_enough = good_enough

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One pass and one more for each corrective click; their losses are averaged."""
        points, losses = batch.clicks, []
        encoded = self.encode(batch.image, points)
        for clicks in range(self.rounds + 1):
            logits = self.decode(encoded, points)
            losses.append(self.joint_loss(logits, batch))
            iou = crop_iou(logits[0] > 0, batch.mask, batch.void, empty=0.0).mean()
            self.log(f"train/iou_crop_{clicks}", iou, batch_size=len(batch))
            if clicks == self.rounds or (self.good_enough is not None and iou >= self.good_enough):
                break
            points = self.corrected(batch, points, logits[0], clicks)
        loss = torch.stack(losses).mean()
        self.log("train/loss", loss, batch_size=len(batch), prog_bar=True)
        return loss

    def corrected(self, batch: Batch, points: Points, logits: Tensor, number: int) -> Points:
        """These clicks and each object's next one; padding where nothing is wrong, or the object pauses."""
        seen = Seen.of(batch, points, logits)
        clicks = seen.next_clicks(RULES[self.rule])
        if self.pause:
            draws = [rng(self.trainer.global_step, int(key), number, PAUSE).random() for key in seen.object_id]
            clicks = [None if draw < self.pause else click for draw, click in zip(draws, clicks)]
        return appended(points, clicks)
