"""SOLOv2 (Wang et al., NeurIPS 2020): every cell of a grid says a class, and the convolution that makes its mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.instances import ImageBatch
from lightning_modules.matrix_nms import matrix_nms
from lightning_modules.networks.deformable import DeformableConv
from lightning_modules.networks.detections import Detections
from lightning_modules.networks.pyramid import FeaturePyramid, detection_backbone
from lightning_modules.solo_detections import solo_detections
from lightning_modules.solo_losses import solo_class_loss, solo_mask_loss
from lightning_modules.solo_targets import solo_targets

LEVELS = 5
PRIOR = 0.01  # what every class of every cell is given at the start
STD = 0.01  # of the random weights of every convolution in heads and mask features


class SoloMaps(NamedTuple):
    """What the network says of a batch.

    Args:
        logits: of each grid, (B, num_classes, S, S), before the sigmoid.
        kernels: of each grid, (B, kernels, S, S).
        features: (B, kernels, H / 4, W / 4), not negative.
    """

    logits: list[Tensor]
    kernels: list[Tensor]
    features: Tensor


class SOLOv2(nn.Module):
    """Backbone, feature pyramid, a head that all grids share, and one map of mask features.

    Shape:
        input: (B, 3, H, W), normalised RGB; H and W divisible by 32.
        output: `SoloMaps`.

    Args:
        backbone, pretrained, frozen_stages, bn_statistics, widths: see `detection_backbone`. A random start wants
            frozen_stages 0; its batch norms see the batch's statistics unless they are frozen.
        channels: of the pyramid.
        tower, blocks: channels and convolutions of each of the head's two towers.
        kernels: numbers that a cell predicts, one for each channel of the mask features.
        mask_channels: within the branch of mask features.
        norm_groups: of every group norm.
        grids: cells along a side of each of the five grids, finest first.
        scale_ranges: pixels (least, most) of the objects of each, see `solo_targets`.
        strides: of each grid; a mask of no more pixels than that is none.
        region: share of an object's box whose cells answer for it, see `solo_targets`.
        deformable: the middle convolutions of the backbone's bottlenecks in C3 to C5 are deformable,
        deformable_heads: and all in towers and mask features are; what predicts classes and kernels is not.
        mask_weight: of the mask's loss beside the class'.
        score_threshold, kept_threshold, mask_threshold, candidates, most: what is kept, see `solo_detections`.
        decay, sigma: see `matrix_nms`.
    """

    def __init__(
        self,
        backbone: str = "resnet50.tv_in1k",
        num_classes: int = 80,
        pretrained: bool | str | None = None,
        frozen_stages: int = 1,
        bn_statistics: Literal["live", "frozen", "loaded"] = "loaded",
        widths: list[int] | None = None,
        channels: int = 256,
        tower: int = 512,
        blocks: int = 4,
        kernels: int = 256,
        mask_channels: int = 128,
        norm_groups: int = 32,
        grids: Sequence[int] = (40, 36, 24, 16, 12),
        scale_ranges: Sequence[Sequence[float]] = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048)),
        strides: Sequence[float] = (8, 8, 16, 32, 32),
        region: float = 0.2,
        deformable: bool = False,
        deformable_heads: bool = False,
        mask_weight: float = 3.0,
        score_threshold: float = 0.1,
        kept_threshold: float = 0.05,
        mask_threshold: float = 0.5,
        candidates: int = 500,
        most: int = 100,
        decay: Literal["gaussian", "linear"] = "gaussian",
        sigma: float = 2.0,
    ) -> None:
        super().__init__()
        for name, values in (("grids", grids), ("scale_ranges", scale_ranges), ("strides", strides)):
            if len(values) != LEVELS:
                raise ValueError(f"SOLOv2 has {LEVELS} grids, from P2 to P6; {name} says {len(values)}: {values}")
        if num_classes < 1:
            raise ValueError(f"SOLOv2 needs a class at least, got num_classes {num_classes}")
        if any(width % norm_groups for width in (tower, kernels, mask_channels)):
            raise ValueError(
                f"norm_groups, here {norm_groups}, divides tower, kernels and mask_channels, got "
                f"{tower}, {kernels} and {mask_channels}"
            )
        self.num_classes = num_classes
        self.backbone = detection_backbone(backbone, pretrained, frozen_stages, bn_statistics, deformable, widths)
        self.pyramid = FeaturePyramid(self.backbone.channels, channels)
        block = partial(conv_block, groups=norm_groups, deformable=deformable_heads)
        self.head = SoloHead(
            in_channels=channels,
            tower=tower,
            blocks=blocks,
            num_classes=num_classes,
            kernels=kernels,
            grids=grids,
            block=block,
        )
        self.masks = MaskFeatures(channels, mask_channels, kernels, block)
        self.grids, self.scale_ranges, self.region, self.mask_weight = grids, scale_ranges, region, mask_weight
        self.strides, self.nms = strides, partial(matrix_nms, decay=decay, sigma=sigma)
        self.score_threshold, self.kept_threshold, self.mask_threshold = score_threshold, kept_threshold, mask_threshold
        self.candidates, self.most = candidates, most

    def forward(self, image: Tensor) -> SoloMaps:
        height, width = image.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(
                f"SOLOv2 sees images whose sides are divisible by 32, got {height} x {width}; fill them up with zeros"
            )
        maps = self.pyramid(self.backbone(image))
        logits, kernels = self.head(maps)
        return SoloMaps(logits, kernels, self.masks(maps[:-1]))

    def losses(self, image: Tensor, batch: ImageBatch) -> dict[str, Tensor]:
        """Terms of the loss (Sec. 3.3), weighted: `mask` and `class`.

        Every trained weight has a gradient, that of 0 where no object is a target.

        Args:
            image: (B, 3, H, W), normalised, zero beyond each image's own size.
            batch: the objects of these images on the same grid.
        """
        self._check_labels(batch.labels)
        maps = self(image)
        targets = [
            solo_targets(*objects, self.num_classes, self.grids, self.scale_ranges, self.region)
            for objects in zip(batch.masks, batch.boxes, batch.labels, strict=True)
        ]
        logits, kernels = (torch.cat([each.flatten(2) for each in part], 2).mT for part in maps[:2])
        classes = torch.stack([target.classes for target in targets])
        return {
            "mask": self.mask_weight * solo_mask_loss(kernels, maps.features, targets),
            "class": solo_class_loss(logits, classes),
        }

    @torch.no_grad()
    def detect(self, image: Tensor, size: Tensor, original_size: Tensor) -> list[Detections]:
        """The objects of each image, the best first.

        Args:
            image: (B, 3, H, W), as in training. size, original_size: (B, 2) as (H, W), before padding and of the file.
        """
        maps = self(image)
        return [
            solo_detections(
                [each[i] for each in maps.logits],
                [each[i] for each in maps.kernels],
                maps.features[i],
                (own[0], own[1]),
                (file[0], file[1]),
                self.nms,
                strides=self.strides,
                score_threshold=self.score_threshold,
                kept_threshold=self.kept_threshold,
                mask_threshold=self.mask_threshold,
                candidates=self.candidates,
                most=self.most,
            )
            for i, (own, file) in enumerate(zip(size.tolist(), original_size.tolist(), strict=True))
        ]

    def _check_labels(self, labels: Sequence[Tensor]) -> None:
        every = torch.cat(list(labels)).tolist()
        if odd := [label for label in every if not 0 <= label < self.num_classes]:
            raise ValueError(
                f"this network has {self.num_classes} classes, labels are from 0 to {self.num_classes - 1}, got "
                f"{odd[0]}; set num_classes to the number of the data's categories"
            )


def conv_block(
    in_channels: int, channels: int, size: int = 3, *, groups: int = 32, deformable: bool = False
) -> nn.Sequential:
    """Convolution without bias, group norm, ReLU."""
    conv = (DeformableConv if deformable else nn.Conv2d)(in_channels, channels, size, padding=size // 2, bias=False)
    nn.init.normal_(conv.weight, std=STD)
    return nn.Sequential(conv, nn.GroupNorm(groups, channels), nn.ReLU(inplace=True))


class SoloHead(nn.Module):
    """Two towers that all grids share: what is there, and how to make its mask.

    Each map of the pyramid is brought to the size of its grid, for the tower of kernels with its coordinates. P2 is
    halved before, and P6 has the size of P5.

    Shape:
        input: five maps (B, in_channels, h, w), finest first, each half as large as the one before.
        output: logits (B, num_classes, S, S) and kernels (B, kernels, S, S) of each grid.
    """

    def __init__(
        self,
        in_channels: int,
        tower: int,
        blocks: int,
        num_classes: int,
        kernels: int,
        grids: Sequence[int],
        block: Callable[[int, int], nn.Module] = conv_block,
    ) -> None:
        super().__init__()
        self.grids = grids
        widths = [tower] * (blocks - 1)
        self.kernel_tower = nn.Sequential(*(block(width, tower) for width in (in_channels + 2, *widths)))
        self.class_tower = nn.Sequential(*(block(width, tower) for width in (in_channels, *widths)))
        self.kernel = nn.Conv2d(tower, kernels, 3, padding=1)
        self.label = nn.Conv2d(tower, num_classes, 3, padding=1)
        for conv, bias in ((self.kernel, 0.0), (self.label, -math.log((1 - PRIOR) / PRIOR))):
            nn.init.normal_(conv.weight, std=STD)
            nn.init.constant_(conv.get_parameter("bias"), bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        p2, p3, p4, p5, p6 = maps
        levels = [brought_to_size(p2, p3.shape[-2:]), p3, p4, p5, brought_to_size(p6, p5.shape[-2:])]
        logits, kernels = [], []
        for level, grid in zip(levels, self.grids):
            placed = brought_to_size(with_coordinates(level), (grid, grid))
            kernels.append(self.kernel(self.kernel_tower(placed)))
            logits.append(self.label(self.class_tower(placed[:, :-2])))
        return logits, kernels


class MaskFeatures(nn.Module):
    """P2 to P5 brought to a quarter of the image by convolutions, each doubling the size, and summed (Sec. 3.2).

    Shape:
        input: four maps (B, in_channels, H / 4 / 2^i, W / 4 / 2^i), finest first.
        output: (B, kernels, H / 4, W / 4), not negative.
    """

    def __init__(
        self, in_channels: int, channels: int, kernels: int, block: Callable[..., nn.Module] = conv_block
    ) -> None:
        super().__init__()
        self.p2 = block(in_channels, channels)
        twice = partial(nn.Upsample, scale_factor=2, mode="bilinear")
        self.p3 = nn.Sequential(block(in_channels, channels), twice())
        self.p4 = nn.Sequential(block(in_channels, channels), twice(), block(channels, channels), twice())
        steps = [module for _ in range(2) for module in (block(channels, channels), twice())]
        self.p5 = nn.Sequential(block(in_channels + 2, channels), twice(), *steps)
        self.final = block(channels, kernels, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        p2, p3, p4, p5 = maps
        summed = self.p2(p2) + self.p3(p3) + self.p4(p4) + self.p5(with_coordinates(p5))
        made: Tensor = self.final(summed)
        return made


def with_coordinates(x: Tensor) -> Tensor:
    """A map (B, C, h, w) and two more channels, x and then y, each from -1 at the first pixel to 1 at the last."""
    height, width = x.shape[-2:]
    across = torch.linspace(-1, 1, width, dtype=x.dtype, device=x.device).expand(len(x), 1, height, width)
    down = torch.linspace(-1, 1, height, dtype=x.dtype, device=x.device)[:, None].expand(len(x), 1, height, width)
    return torch.cat([x, across, down], dim=1)


def brought_to_size(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, with the outer edges kept in place; as it is if it has this size."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
