"""Whole images with their instances: the contract between data and methods that find every object of an image."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.mask_runs import MaskRuns
from datamodules.resizing import Placement


@dataclass
class ImageSample:
    """One image and its n instances as they are read: pixels are resized and masks drawn on the grid of their batch.

    Args:
        image: (H, W, 3) uint8 RGB, as in its file.
        place: where it comes to lie.
        fill: value of pixels beyond it.
        position: its place among the images of the data.
        masks: run lengths of its instances; None without any.
        boxes: (n, 4) float64 xyxy in its pixels, x2 and y2 exclusive.
        labels: (n,) int64.
    """

    image: NDArray[np.uint8]
    place: Placement
    fill: int
    position: int
    masks: MaskRuns | None
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass
class ImageBatch:
    """Images of one step with their instances, the same for all data sets and methods.

    Each image stands in the upper left corner of the grid of the batch. Boxes are xyxy, x2 and y2 exclusive (COCO's
    x + w). At evaluation an image has no instances here: what is true, its annotation file says.
    """

    image: Tensor  # (B, 3, H, W) uint8 RGB
    size: Tensor  # (B, 2) int64 as (H, W): each image's own, on this grid
    original_size: Tensor  # (B, 2) int64 as (H, W): of the image's file
    position: Tensor  # (B,) int64: its place among the images of the data
    masks: list[Tensor]  # per image (n, H, W) uint8 of 0 and 1
    boxes: list[Tensor]  # per image (n, 4) float32: the annotated boxes, moved along and cut where the image ends
    labels: list[Tensor]  # per image (n,) int64: places in the categories of the data, from 0

    def __len__(self) -> int:
        return len(self.position)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ImageBatch:
        """The same on another device; pixels, which loaders leave channels last, are laid out plane by plane there."""
        moved = copy(self)
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                setattr(moved, f.name, value.to(device, non_blocking=non_blocking))
            else:
                setattr(moved, f.name, [part.to(device, non_blocking=non_blocking) for part in value])
        moved.image = moved.image.contiguous()
        return moved

    def pin_memory(self) -> ImageBatch:
        """Called by the DataLoader's pinning thread."""
        for f in fields(self):
            value = getattr(self, f.name)
            pinned = value.pin_memory() if isinstance(value, Tensor) else [part.pin_memory() for part in value]
            setattr(self, f.name, pinned)
        return self


def collate_images(samples: Sequence[ImageSample], multiple: int = 32) -> ImageBatch:
    """Samples on the smallest grid that holds them all, its sides multiples of `multiple`.

    Beyond each image's own size lies its `fill`; no mask reaches there. An instance of which no pixel is left, or
    nothing of the box, is left out; an image may be left with none.
    """
    places = [sample.place for sample in samples]
    height, width = (
        -(-side // multiple) * multiple for side in np.max([place.canvas for place in places], axis=0).tolist()
    )
    image = torch.empty((len(samples), height, width, 3), dtype=torch.uint8)
    masks, boxes, labels = [], [], []
    for sample, place, pixels in zip(samples, places, image.numpy()):
        own_height, own_width = place.size
        place.show(sample.image, pixels[:own_height, :own_width])
        pixels[own_height:] = sample.fill
        pixels[:own_height, own_width:] = sample.fill
        moved = place.boxes(sample.boxes)
        inside = np.all(moved[:, 2:] > moved[:, :2], axis=1)
        shown, drawn = place.masks(sample.masks, (height, width), inside)
        masks.append(torch.from_numpy(drawn))
        boxes.append(torch.from_numpy(moved[shown]))
        labels.append(torch.from_numpy(sample.labels[shown]))
    return ImageBatch(
        image=image.permute(0, 3, 1, 2),
        size=torch.tensor([place.size for place in places]),
        original_size=torch.tensor([place.original for place in places]),
        position=torch.tensor([sample.position for sample in samples]),
        masks=masks,
        boxes=boxes,
        labels=labels,
    )
