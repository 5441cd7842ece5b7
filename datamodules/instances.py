"""Whole images with their instances: the contract between data and methods that find every object of an image."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class MaskWindow(NamedTuple):
    """A mask without most of its background: `pixels` (h, w) uint8 of 0 and 1, and where its first one lies."""

    pixels: NDArray[np.uint8]
    x: int
    y: int


@dataclass
class ImageSample:
    """One image and its n instances as arrays, not padded: the fields of ImageBatch, channels last.

    `canvas` (H, W) is the least grid of the batch, `fill` the value of its pixels beyond the image.
    """

    image: NDArray[np.uint8]
    original_size: tuple[int, int]
    canvas: tuple[int, int]
    fill: int
    position: int
    masks: list[MaskWindow]
    boxes: NDArray[np.float32]
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

    Beyond each image's own size lies its `fill`; no mask reaches there.
    """
    sides = np.array([[*sample.image.shape[:2], *sample.canvas] for sample in samples]).reshape(-1, 2, 2)
    height, width = (-(-int(side) // multiple) * multiple for side in sides.max(axis=(0, 1)))
    image = torch.empty((len(samples), height, width, 3), dtype=torch.uint8)
    for sample, pixels in zip(samples, image.numpy()):
        own_height, own_width = sample.image.shape[:2]
        pixels[:own_height, :own_width] = sample.image
        pixels[own_height:] = sample.fill
        pixels[:own_height, own_width:] = sample.fill
    return ImageBatch(
        image=image.permute(0, 3, 1, 2),
        size=torch.tensor([sample.image.shape[:2] for sample in samples]),
        original_size=torch.tensor([sample.original_size for sample in samples]),
        position=torch.tensor([sample.position for sample in samples]),
        masks=[_on_grid(sample.masks, (height, width)) for sample in samples],
        boxes=[torch.from_numpy(sample.boxes) for sample in samples],
        labels=[torch.from_numpy(sample.labels) for sample in samples],
    )


def _on_grid(windows: Sequence[MaskWindow], size: tuple[int, int]) -> Tensor:
    """(n, H, W): the masks in full."""
    masks = torch.zeros((len(windows), *size), dtype=torch.uint8)
    for mask, (pixels, x, y) in zip(masks.numpy(), windows):
        mask[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return masks
