"""Whole images with a few rectangles, whose masks, boxes and classes are known by hand; and what is found of them."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.instances import ImageBatch
from lightning_modules.networks.detections import Detections

Rectangle = tuple[int, int, int, int, int]  # x1, y1, x2, y2, class

FOUR_IMAGES: list[list[Rectangle]] = [
    [(8, 10, 44, 40, 0), (70, 60, 104, 100, 1)],
    [(20, 70, 60, 104, 1), (72, 12, 100, 50, 2)],
    [(14, 20, 50, 60, 2), (66, 70, 106, 104, 0)],
    [(60, 14, 100, 44, 0), (10, 76, 44, 110, 2)],
]


def drawn_batch(images: list[list[Rectangle]], side: int = 128) -> tuple[Tensor, ImageBatch]:
    """Faint noise (B, 3, side, side) where the pixels of class c are bright in channel c, and its batch."""
    generator = torch.Generator().manual_seed(1)
    seen = 0.1 * torch.randn(len(images), 3, side, side, generator=generator)
    masks = [torch.zeros(len(objects), side, side, dtype=torch.uint8) for objects in images]
    for image, (objects, of_image) in enumerate(zip(images, masks)):
        for (x1, y1, x2, y2, label), mask in zip(objects, of_image):
            mask[y1:y2, x1:x2] = 1
            seen[image, label, y1:y2, x1:x2] += 1.5
    size = torch.full((len(images), 2), side)
    batch = ImageBatch(
        image=torch.zeros(len(images), 3, side, side, dtype=torch.uint8),
        size=size,
        original_size=size.clone(),
        position=torch.arange(len(images)),
        masks=masks,
        boxes=[torch.tensor([each[:4] for each in objects]).float().view(-1, 4) for objects in images],
        labels=[torch.tensor([each[4] for each in objects], dtype=torch.int64) for objects in images],
    )
    return seen, batch


def best_iou(found: Detections, mask: Tensor, label: int, sure: float = 0.5) -> float:
    """The largest IoU with a mask (H, W) among what was found of its class with at least this score."""
    masks = found.masks[(found.labels == label) & (found.scores >= sure)]
    both, either = (masks & mask.bool()).flatten(1).sum(1), (masks | mask.bool()).flatten(1).sum(1)
    return float((both / either.clamp(min=1)).max()) if len(masks) else 0.0
