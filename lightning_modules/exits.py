"""EXITS' first stage: a generator of masks that learns from four extreme points (CVPR 2024), and MAL, its base."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from pytorch_lightning import Callback, LightningModule
from torch import Tensor, nn

from datamodules import geometry
from datamodules.batch import Batch
from datamodules.clicks.points import Points
from datamodules.ranges import Range
from lightning_modules.averages import Averaging
from lightning_modules.mean_field import MeanField
from lightning_modules.metrics.masks import crop_iou
from lightning_modules.networks.mask_generator import MaskGenerator
from lightning_modules.point_retrieval import PointRetrieval, Retrieved
from lightning_modules.point_supervision import PointSupervision, box_areas, extreme_points_of
from lightning_modules.schedules import Constant, stepped
from lightning_modules.weak_losses import dice, projection

# Of images of 0..255, in which the mean field's zeta is given: what MAL's network sees, whatever ours does.
GUIDE_STD = (58.395, 57.12, 57.375)


class EXITS(LightningModule):
    """Extreme points as supervision (Sec. 3.2), and the Mask Auto-Labeler (MAL, Lan et al., 2023) that it builds on.

    The network sees a crop around an object and is never shown the object's mask: Batch.mask is the filled box that the
    extreme points span, the recipe's `supervision: box`. It learns from two terms (eq. 10):

    - the points that a random walk finds from the extreme points (`PointSupervision`), or, without `points`, that the
      mask fills the box's rows and columns and no others (MIL, eq. 1). The latter is MAL, Table 4's baseline;
    - that it agrees with the mean field of its own and its teacher's prediction (eq. 9). Without a `mean_field` there
      is no teacher. Without both it is the similarity extractor, which another training of this class makes and which
      this one takes as its parent `extractor` wherever there are `points`.

    Args:
        network: the student.
        optimizer: called with the student's parameters.
        points: None for MAL and the extractor.
        mean_field: what the student is to agree with; None for the first term alone.
        rate_of: whether the optimiser's rate is that of one object (`sample`), multiplied by the global batch as in
            MAL's code, or that of the whole `step`.
        schedule: of the learning rate.
        weight: of the first term; MAL's 4, the paper gives no lambda_point.
        ramp: steps over which that weight rises from 0. MAL's ramps hold within the first epoch only, so that on a
            small data set weights jump at its end; these follow the steps.
        crf_weight, crf_ramp: the same of the second term.
        extractor_view: which view the extractor sees, the `clean` one or the `student`'s, whose colours change at every
            visit; the paper does not say.
        crf_guide: the image whose edges the mean field follows: the `student`'s coloured one, as in MAL, or the
            `clean` one.
        momentum: of the teacher.
        shown: who predicts: the `student`, the `teacher`, or the `mean` of their logits. Training does not read it, so
            that every evaluation of a run may choose.
        image_mean, image_std: the networks see (image - mean) / std of 0..255 values.
    """

    behaviour = 1  # raise when a fix changes results: runs made before are then made again
    training_only: ClassVar[tuple[str, ...]] = (
        "optimizer",
        "points",
        "mean_field",
        "rate_of",
        "schedule",
        "weight",
        "ramp",
        "crf_weight",
        "crf_ramp",
        "crf_guide",
        "extractor_view",
        "momentum",
    )
    starts: ClassVar[Mapping[str, str]] = {
        "network.pretrained": "network.model",
        "network.embed_pretrained": "network.patch_embed",
    }

    evaluation_only: ClassVar[tuple[str, ...]] = ("shown",)
    follows: ClassVar[tuple[str, ...]] = ("teacher",)  # of a start without one: `Averaging` copies the student then

    sees_box_alone = True  # at test: of the points, only the box that they span is looked at

    image_mean: Tensor
    image_std: Tensor
    guide_std: Tensor
    averaged: Tensor

    def __init__(
        self,
        network: MaskGenerator,
        optimizer: Callable[[Any], torch.optim.Optimizer],
        points: PointSupervision | None = None,
        mean_field: MeanField | None = None,
        rate_of: Literal["sample", "step"] = "sample",
        schedule: Callable[[float], float] | None = None,
        weight: float = 4.0,
        ramp: int = 1000,
        crf_weight: float = 0.5,
        crf_ramp: int = 4000,
        crf_guide: Literal["student", "clean"] = "student",
        extractor_view: Literal["clean", "student"] = "clean",
        momentum: float = 0.996,
        shown: Literal["student", "teacher", "mean"] = "student",
        image_mean: float | list[float] = 0.0,
        image_std: float | list[float] = 1.0,
    ) -> None:
        super().__init__()
        weights = {"weight": weight, "ramp": ramp, "crf_weight": crf_weight, "crf_ramp": crf_ramp}
        for name, value in weights.items():
            Range(0).checked(value, f"model.{name}")
        if mean_field is None and shown != "student":
            raise ValueError(f"without a mean field there is no teacher: model.shown is the student, got {shown}")
        self.network, self.points, self.mean_field = network, points, mean_field
        self.optimizer, self.rate_of = optimizer, rate_of
        self.schedule = schedule or Constant()
        self.weight, self.ramp = weight, ramp
        self.crf_weight, self.crf_ramp, self.crf_guide = crf_weight, crf_ramp, crf_guide
        self.extractor_view, self.momentum, self.shown = extractor_view, momentum, shown
        self.teacher = None if mean_field is None else _frozen_copy(network)
        self.extractor = None if points is None else _frozen_copy(network)
        self.register_buffer("image_mean", torch.as_tensor(image_mean).float().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.as_tensor(image_std).float().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("guide_std", torch.tensor(GUIDE_STD).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("averaged", torch.zeros((), dtype=torch.int64))  # steps of the teacher so far
        # processes exchange nothing of what learns nothing
        self._ddp_params_and_buffers_to_ignore = [
            f"{part}.{name}" for part, module in self.frozen.items() for name in module.state_dict()
        ]

    @staticmethod
    def takes(arguments: Mapping[str, Any]) -> dict[str, str]:
        """The finished runs that a training with these arguments needs: an extractor wherever there are points."""
        return {} if arguments.get("points") is None else {"extractor": "extractor"}

    @property
    def frozen(self) -> dict[str, nn.Module]:
        """Parts that never learn, by name."""
        parts = {"teacher": self.teacher, "extractor": self.extractor}
        return {name: part for name, part in parts.items() if part is not None}

    def train(self, mode: bool = True) -> EXITS:
        """Only the student ever is in training mode."""
        super().train(mode)
        for part in self.frozen.values():
            part.eval()
        return self

    def configure_callbacks(self) -> list[Callback]:
        """The teacher's average."""
        return [] if self.teacher is None else [Averaging(self.momentum)]

    def forward(self, image: Tensor, points: Points, network: nn.Module | None = None) -> Tensor:
        """Crops (B, 3, H, W) of 0..255 and points that span the boxes -> logits (B, 1, S, S) on the mask's grid.

        `network` is the student, if no other of this kind is named.
        """
        logits: Tensor = (network or self.network)(self.seen(image), box_areas(points))
        return logits.float()

    def seen(self, image: Tensor) -> Tensor:
        """Crops of 0..255 as the networks see them."""
        return (image.float() - self.image_mean) / self.image_std

    def on_fit_start(self) -> None:
        """Raises ValueError for data that show masks, or no clean view, and for a layer that there is not."""
        sample = getattr(getattr(self.trainer, "datamodule", None), "sample", None)
        if sample is not None and sample.supervision != "box":
            raise ValueError(
                f"EXITS learns from boxes and points alone: data.sample.supervision is box, got {sample.supervision}"
            )
        if sample is not None and self.frozen and "clean_image" not in sample.extras:
            raise ValueError("teacher and extractor see the clean view; set data.sample.extras to [clean_image]")
        if self.points is not None:
            depth, layer = self.network.depth, self.points.retrieval.layer
            if layer > depth:
                raise ValueError(f"this ViT has layers 1 to {depth}, got layer {layer}")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Both terms, each as far as its ramp has come."""
        student = torch.sigmoid(self(batch.image, batch.clicks))
        box = brought_to(batch.mask.float(), student)
        if self.points is None:
            first = projection(student, box)
        else:
            view = _clean(batch) if self.extractor_view == "clean" else batch.image
            found = self.retrieved(view, batch.clicks, batch.mask)
            first = self.points(found, student, box, batch.object_id, self.current_epoch)
        terms = {"first": first.mean()}
        loss = self.weight * self._risen(self.ramp) * terms["first"]
        if self.mean_field is not None:
            terms["crf"] = dice(student, self.refined(self.mean_field, batch, student, box)).mean()
            loss = loss + self.crf_weight * self._risen(self.crf_ramp) * terms["crf"]
        said = {"train/loss": loss, **{f"train/{name}": term for name, term in terms.items()}}
        self.log_dict(said, batch_size=len(batch), prog_bar=True)
        return loss

    def _risen(self, steps: int) -> float:
        """How far a ramp of so many steps has come."""
        return min(1.0, self.trainer.global_step / steps) if steps else 1.0

    @torch.no_grad()
    def similarity(self, image: Tensor, layer: int) -> Tensor:
        """(B, n, n) how alike the places of crops (B, 3, H, W) of 0..255 are to the extractor, by this layer.

        A model that has no extractor is one.
        """
        return (self.extractor or self.network).similarity(self.seen(image), layer)

    @torch.no_grad()
    def retrieved(
        self,
        image: Tensor,
        points: Points,
        box: Tensor,
        walk: PointRetrieval | None = None,
        similarity: Tensor | None = None,
    ) -> Retrieved:
        """The points that a walk finds on crops (B, 3, H, W) with the filled boxes (B, 1, H, W).

        In training, in labelling and in the protocol `retrieval`: the last asks for other walks than that of `points`,
        and where a similarity of the walk's layer is known it is not asked for again.
        """
        walk = walk or (None if self.points is None else self.points.retrieval)
        if walk is None:
            raise ValueError("a model without points retrieves none: it has no extractor")
        alike = self.similarity(image, walk.layer) if similarity is None else similarity
        found: Retrieved = walk(alike, extreme_points_of(points), box)
        return found

    @torch.no_grad()
    def refined(self, mean_field: MeanField, batch: Batch, student: Tensor, box: Tensor) -> Tensor:
        """(B, 1, S, S) of 0 and 1: the mean field of the student's and the teacher's prediction together (eq. 9)."""
        clean = _clean(batch)
        teacher = torch.sigmoid(self(clean, batch.clicks, self.teacher))
        guide = (batch.image if self.crf_guide == "student" else clean).float() / self.guide_std
        return (mean_field(brought_to(guide, student), (student + teacher) / 2, box) > 0.5).float()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Progress on the crop's grid against the true masks; the teacher counts once it has learned something."""
        truth = masks_on_the_crop(batch).to(batch.mask.device)
        asked: dict[str, nn.Module] = {"val/iou_crop": self.network}
        if self.teacher is not None and int(self.averaged):
            asked["val/iou_crop_teacher"] = self.teacher
        for name, network in asked.items():
            inside = (brought_to(self(batch.image, batch.clicks, network), batch.mask) > 0) & (batch.mask > 0.5)
            iou = crop_iou(inside, truth, batch.void)
            self.log(name, iou.mean(), batch_size=len(batch), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """One learning rate for the whole student; the schedule is stepped after each update."""
        optimizer = self.optimizer([p for p in self.network.parameters() if p.requires_grad])
        for group in optimizer.param_groups:
            group["lr"] *= self._objects_of_the_rate()
        return stepped(optimizer, self.schedule, self.trainer)

    def _objects_of_the_rate(self) -> int:
        return int(self.trainer.datamodule.batch_size) if self.rate_of == "sample" else 1  # type: ignore[attr-defined]

    def facts(self) -> dict[str, str]:
        """What a record says of this training beside its values."""
        rate, objects = self.trainer.optimizers[0].defaults["lr"], self._objects_of_the_rate()
        made_of = f", {rate:.3g} per object times the global batch of {objects}" if self.rate_of == "sample" else ""
        return {"learning_rate": f"{rate * objects:.3g} at its peak{made_of}"}

    def check_taken(self, role: str, other: LightningModule) -> None:
        """Raises ValueError for an extractor that sees other crops, another grid or other colours than this network."""
        if not isinstance(other, EXITS) or other.points is not None:
            what = "one with points" if isinstance(other, EXITS) else f"one of {type(other).__name__}"
            raise ValueError(f"the {role} is a run of EXITS without points, got {what}")
        means = [
            [*module.image_mean.flatten().tolist(), *module.image_std.flatten().tolist()] for module in (other, self)
        ]
        if means[0] != means[1]:
            raise ValueError(
                f"the {role} saw images with means and deviations of {means[0]}, this generator has {means[1]}: set "
                "model.image_mean and model.image_std alike"
            )
        for what, of in (("size", "backbone.size"), ("grid", "grid")):
            theirs, ours = (attrgetter(of)(module.network) for module in (other, self))
            if theirs != ours:
                raise ValueError(
                    f"the {role} was trained with a {what} of {theirs}, this generator has {ours}: its points would "
                    "lie elsewhere; train both with the same data.sample.size and model.network"
                )

    def start(self, image: Tensor, points: Points) -> Tensor:
        """The logits (B, 1, H, W): they depend on nothing but the crop and how large its box is."""
        if self.shown != "student" and not int(self.averaged):
            raise ValueError(
                "the teacher has learned nothing: these weights are the student's alone; set model.shown=student"
            )
        networks: dict[str, list[MaskGenerator | None]]
        networks = {"student": [self.network], "teacher": [self.teacher], "mean": [self.network, self.teacher]}
        logits = torch.stack([self(image, points, network) for network in networks[self.shown]]).mean(0)
        return brought_to(logits, image)

    def predict(self, state: Tensor, points: Points, previous_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same whatever is clicked further: the network takes no clicks."""
        return state, state


def _clean(batch: Batch) -> Tensor:
    """The clean view. Raises ValueError for a batch without."""
    if batch.clean_image is None:
        raise ValueError("teacher and extractor see the clean view; set data.sample.extras to [clean_image]")
    return batch.clean_image


def _frozen_copy(network: MaskGenerator) -> MaskGenerator:
    return copy.deepcopy(network).requires_grad_(False).eval()


def masks_on_the_crop(batch: Batch) -> Tensor:
    """(B, 1, H, W) of 0 and 1: the true masks of an evaluation's batch, nearest neighbours, on the CPU."""
    seen = [
        geometry.warp(coco_mask.decode(full.mask), matrix, batch.size, "nearest")
        for full, matrix in zip(batch.rle or (), batch.to_crop.cpu().numpy())
    ]
    return torch.from_numpy(np.stack(seen))[:, None]


def brought_to(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear to the size of another map, pixel centres kept (corners not aligned), as everywhere in MAL."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
