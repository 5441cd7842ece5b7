"""The contract between data and methods: one object, one sample; many samples, one Batch."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.clicks.points import PointKind, Points


class FullMask(NamedTuple):
    """COCO run lengths of an object's full-size mask and void, for scoring; decode with pycocotools."""

    mask: dict
    void: dict | None


@dataclass
class Sample:
    """One object as arrays: the fields of Batch without their batch dimension, channels last."""

    image: NDArray
    mask: NDArray
    void: NDArray
    points: NDArray[np.float32]
    point_kinds: NDArray[np.int64]
    to_crop: NDArray[np.float64]
    crop_box: NDArray[np.int64]
    box: NDArray[np.int64]
    image_size: tuple[int, int]
    object_id: int
    others: NDArray | None = None
    clean_image: NDArray | None = None
    rle: FullMask | None = None


@dataclass
class Batch:
    """Objects of one step, the same for all data sets and methods. Coordinates are (x, y), boxes inclusive xyxy."""

    image: Tensor  # (B, 3, H, W) uint8 or float32, RGB, 0..255
    mask: Tensor  # (B, 1, H, W) uint8, or float32 where the recipe resizes softly
    void: Tensor  # (B, 1, H, W) uint8: 1 at pixels nobody labelled
    points: Tensor  # (B, K, 2) float32 in crop pixels, padded
    point_kinds: Tensor  # (B, K) int64, PointKind
    to_crop: Tensor  # (B, 2, 3) float64: full-image to crop pixels, flip and rotation included
    crop_box: Tensor  # (B, 4) int64: the window to paste back into, in (augmented) image pixels; may leave the image
    box: Tensor  # (B, 4) int64: the object's own box, same pixels
    image_size: Tensor  # (B, 2) int64 as (H, W)
    object_id: Tensor  # (B,) int64
    others: Tensor | None = None  # (B, 1, H, W) uint8 label map: 1, 2, ... where the other objects of the image are
    clean_image: Tensor | None = None  # (B, 3, H, W): the same crop before augmentation of its colours and geometry
    rle: list[FullMask] | None = None
    window_counts: Tensor | None = None  # (3,): object, background, void pixels of this process' accumulated step

    def __len__(self) -> int:
        return len(self.object_id)

    @property
    def clicks(self) -> Points:
        """The clicks as methods and guidance take them."""
        height, width = self.size
        extent = self.crop_box[:, 2:] - self.crop_box[:, :2] + 1
        return Points(self.points, self.point_kinds, self.points.new_tensor([width, height]) / extent)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the crops."""
        return self.image.shape[-2], self.image.shape[-1]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same on another device. Without it Lightning looks for tensors in every byte of the run lengths."""
        moved = copy(self)
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                setattr(moved, f.name, value.to(device, non_blocking=non_blocking))
        return moved

    def pin_memory(self) -> Batch:
        """Called by the DataLoader's pinning thread."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                setattr(self, f.name, value.pin_memory())
        return self


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of equal crop size to a Batch; points are padded to the longest list."""
    longest = max(len(sample.points) for sample in samples)
    points = np.zeros((len(samples), longest, 2), np.float32)
    kinds = np.full((len(samples), longest), PointKind.PADDING, np.int64)
    for i, sample in enumerate(samples):
        points[i, : len(sample.points)], kinds[i, : len(sample.points)] = sample.points, sample.point_kinds

    def images(name: str) -> Tensor:
        arrays = [getattr(sample, name) for sample in samples]
        if arrays[0].ndim == 2:
            return torch.from_numpy(np.stack(arrays)[:, None])
        return torch.from_numpy(np.ascontiguousarray(np.stack(arrays).transpose(0, 3, 1, 2)))

    def rows(name: str) -> Tensor:
        return torch.from_numpy(np.stack([np.asarray(getattr(sample, name)) for sample in samples]))

    rles = [sample.rle for sample in samples if sample.rle is not None]
    return Batch(
        image=images("image"),
        mask=images("mask"),
        void=images("void"),
        points=torch.from_numpy(points),
        point_kinds=torch.from_numpy(kinds),
        to_crop=rows("to_crop"),
        crop_box=rows("crop_box"),
        box=rows("box"),
        image_size=rows("image_size"),
        object_id=rows("object_id"),
        others=None if samples[0].others is None else images("others"),
        clean_image=None if samples[0].clean_image is None else images("clean_image"),
        rle=rles or None,
    )
