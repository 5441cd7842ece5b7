"""Instance segmentation on whole images: the second stage of EXITS, which does not know that its masks are labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from datamodules.instances import ImageBatch
from lightning_modules.networks.detections import Detections
from lightning_modules.networks.statistics import KeepsStatistics
from lightning_modules.schedules import Constant, Warmup, stepped


class InstanceSegmentation(LightningModule):
    """SOLOv2, Mask2Former or Mask R-CNN, trained on masks of people or on labels of the first stage (Sec. 4.1).

    The three differ in their network, which holds its own targets, losses and inference (`losses`, `detect`), and in
    what a recipe says of optimiser and schedule. Batches are whole images (ImageBatch); units of an evaluation are
    images.

    Args:
        network: a `losses(image, batch)` and a `detect(image, size, original_size)`; with `parameter_groups()`, a list
            of {params, rate_factor, decay_factor}, where its parts learn at different rates.
        optimizer: called with parameters or groups of them; its rate is that of the recipe's global batch.
        schedule: of the rate, by the share of steps that are done.
        warmup: what the rate is multiplied by in the first steps, besides.
        image_mean, image_std: the network sees (image - mean) / std of 0..255 values, and 0 beyond an image.
        zero_beyond: whether pixels beyond an image are 0 after normalisation (SOLOv2, Mask R-CNN) or what the loader
            filled them with, normalised like all others (Mask2Former's gray of large-scale jitter).
    """

    behaviour = 1  # raise when a fix changes results: runs made before are then made again
    training_only: ClassVar[tuple[str, ...]] = ("optimizer", "schedule", "warmup")
    starts: ClassVar[Mapping[str, str]] = {"network.pretrained": "network.backbone"}

    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Any], torch.optim.Optimizer],
        schedule: Callable[[float], float] | None = None,
        warmup: Warmup | None = None,
        image_mean: float | list[float] = 0.0,
        image_std: float | list[float] = 1.0,
        zero_beyond: bool = True,
    ) -> None:
        super().__init__()
        self.network, self.optimizer = network, optimizer
        self.schedule, self.warmup = schedule or Constant(), warmup
        self.zero_beyond = zero_beyond
        self.register_buffer("image_mean", torch.as_tensor(image_mean).float().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.as_tensor(image_std).float().view(1, -1, 1, 1), persistent=False)

    def seen(self, batch: ImageBatch) -> Tensor:
        """The images as the network sees them, (B, 3, H, W) float32."""
        image = (batch.image.float() - self.image_mean) / self.image_std
        return image * own_pixels(batch.size, image) if self.zero_beyond else image

    def setup(self, stage: str) -> None:
        """Let all of a backbone learn that nobody has trained: frozen stages of a random start would stay random."""
        backbone = getattr(self.network, "backbone", None)
        if stage == "fit" and isinstance(backbone, KeepsStatistics) and not backbone.loaded:
            backbone.requires_grad_(True)

    def on_fit_start(self) -> None:
        """Raises ValueError where the network has another number of classes than the data."""
        categories, classes = self.classes, getattr(self.network, "num_classes", None)
        if categories and classes != len(categories):
            raise ValueError(
                f"the network tells {classes} classes apart, the training data have {len(categories)} "
                f"({', '.join(categories[:5])} ...); set model.network.num_classes={len(categories)}"
            )

    @property
    def classes(self) -> list[str]:
        """The names of the training data's categories; none without data."""
        trainer = self._trainer
        return list(getattr(getattr(trainer, "datamodule", None), "categories", ()))

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """The sum of the network's terms, which are weighted already."""
        terms: dict[str, Tensor] = self.network.losses(self.seen(batch), batch)  # type: ignore[operator]
        loss = torch.stack(list(terms.values())).sum()
        said = {"train/loss": loss, **{f"train/{name}": term for name, term in terms.items()}}
        self.log_dict(said, batch_size=len(batch), prog_bar=True)
        return loss

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Progress only: the same terms on other images. AP is measured on whole data sets, by an evaluation."""
        terms: dict[str, Tensor] = self.network.losses(self.seen(batch), batch)  # type: ignore[operator]
        said = {"val/loss": torch.stack(list(terms.values())).sum(), **{f"val/{k}": term for k, term in terms.items()}}
        self.log_dict(said, batch_size=len(batch), sync_dist=True)

    @torch.no_grad()
    def detect(self, batch: ImageBatch) -> list[Detections]:
        """What is found in each image, the best first, masks at the size of its file."""
        found: list[Detections] = self.network.detect(  # type: ignore[operator]
            self.seen(batch), batch.size, batch.original_size
        )
        return found

    def configure_optimizers(self) -> Any:
        """The network's own groups at their shares of rate and decay, or all parameters alike."""
        asked: Callable[[], list[dict[str, Any]]] | None = getattr(self.network, "parameter_groups", None)
        if asked is None:
            optimizer = self.optimizer([p for p in self.network.parameters() if p.requires_grad])
        else:
            optimizer = self.optimizer(asked())
            for group in optimizer.param_groups:
                group["lr"] *= group.pop("rate_factor", 1.0)
                group["weight_decay"] *= group.pop("decay_factor", 1.0)
        return stepped(optimizer, self.schedule, self.trainer, self.warmup)

    def facts(self) -> dict[str, Any]:
        """What a record says of this training beside its values: rate, samples, and the names of its classes."""
        rate, images = self.trainer.optimizers[0].defaults["lr"], self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
        seen = self.trainer.global_step * images
        return {
            "learning_rate": f"{rate:.3g} at its peak, for a global batch of {images} images",
            "samples": f"{seen:,} images seen in {self.trainer.global_step:,} steps",
            "classes": self.classes,
        }


def own_pixels(size: Tensor, image: Tensor) -> Tensor:
    """(B, 1, H, W) of 0 and 1: the pixels of a padded batch (B, C, H, W) that belong to its images of `size` (B, 2)."""
    height, width = image.shape[-2:]
    rows = torch.arange(height, device=image.device)[None] < size[:, :1].to(image.device)
    columns = torch.arange(width, device=image.device)[None] < size[:, 1:].to(image.device)
    return (rows[:, :, None] & columns[:, None]).to(image.dtype)[:, None]
