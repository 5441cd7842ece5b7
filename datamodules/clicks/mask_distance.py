"""The mask channel of ITIS: how far every pixel lies from the mask that is to be corrected (Sec. 3).

An exact distance transform is OpenCV's work: on the CPU, for the objects of a batch in threads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamodules.clicks.distance import squared_distance

REACH = 128  # pixels; the authors' code cuts here, the paper does not say


def mask_distance(mask: NDArray, empty: float = 1.0) -> NDArray[np.float32]:
    """Distance to the nearest pixel of the mask, cut at 128 pixels and divided by them.

    Distances inside of the mask, which the authors' code can subtract, are not used for the published numbers.

    Args:
        mask: (H, W), bool or numbers; above 0 is the mask.
        empty: the value everywhere for a mask without pixels: 1 in the authors' code, as if it were far away.
    Returns: (H, W) float32 in [0, 1], 0 on the mask; the same bits for the same mask.
    """
    if mask.ndim != 2:
        raise ValueError(f"expected one mask (H, W), got an array of shape {mask.shape}")
    inside = (mask > 0).view(np.uint8)
    x, y, width, height = cv2.boundingRect(inside)
    if width == 0:
        return np.full(mask.shape, empty, np.float32)
    channel = np.ones(mask.shape, np.float32)
    near = np.s_[max(y - REACH, 0) : y + height + REACH, max(x - REACH, 0) : x + width + REACH]  # all else is farther
    squared = np.minimum(squared_distance(1 - inside[near]), REACH**2)
    np.divide(np.sqrt(squared, out=squared), REACH, out=channel[near])
    return channel


def mask_channel(
    masks: Tensor | Sequence[Tensor | None] | None,
    objects: int,
    size: tuple[int, int],
    device: torch.device | str | None = None,
    *,
    empty: float = 1.0,
    unseen: float = 1.0,
) -> Tensor:
    """The mask channels (B, 1, H, W), float32, of a batch of objects on crops of `size` (H, W).

    Args:
        masks: (B, 1, H, W) or one (1, H, W) per object, above 0 on the mask. An object without a mask has None or
            -1 everywhere; None says it of all objects.
        objects, size, device: B, (H, W), and where to put the channel.
        empty: the value for a mask without pixels; see `mask_distance`.
        unseen: the value for an object that has no mask yet. The paper calls that an empty mask (1); the authors' code
            feeds a mask of ones (0), so that "not predicted yet" and "predicted nothing" are opposites.
    """
    if masks is not None and len(masks) != objects:
        raise ValueError(f"expected the masks of {objects} objects, got {len(masks)}")
    # one copy off the device for the whole batch
    given: Sequence[Tensor | None] = [None] * objects if masks is None else list(_on_cpu(masks))

    def channel(mask: Tensor | None) -> NDArray[np.float32]:
        if mask is not None and mask.shape != (1, *size):
            raise ValueError(f"expected masks of shape {(1, *size)}, got one of {tuple(mask.shape)}")
        if mask is None or (mask.dtype.is_signed and bool((mask < 0).all())):
            return np.full(size, unseen, np.float32)
        return mask_distance((mask[0] > 0).numpy(), empty)

    threads = min(objects, os.cpu_count() or 1)
    if threads > 1:  # OpenCV and NumPy let go of the interpreter meanwhile
        with ThreadPoolExecutor(threads) as pool:
            channels = list(pool.map(channel, given))
    else:
        channels = [channel(mask) for mask in given]
    stacked = np.stack(channels) if channels else np.zeros((0, *size), np.float32)
    return torch.from_numpy(stacked)[:, None].to(device)


class MaskDistance(nn.Module):
    """`mask_channel` as a part of a recipe; a recipe names it or names none.

    Args:
        empty: value of the channel where the last mask has no pixels.
        unseen: where there is no last mask yet, before the first prediction; 0 in the authors' code, as if all of the
            image had been predicted, 1 for the paper's "empty mask".
    """

    channels: ClassVar[int] = 1

    def __init__(self, empty: float = 1.0, unseen: float = 1.0) -> None:
        super().__init__()
        self.empty, self.unseen = empty, unseen

    def forward(
        self,
        masks: Tensor | Sequence[Tensor | None] | None,
        objects: int,
        size: tuple[int, int],
        device: torch.device | str | None = None,
    ) -> Tensor:
        """(B, 1, H, W) in [0, 1]."""
        return mask_channel(masks, objects, size, device, empty=self.empty, unseen=self.unseen)


def _on_cpu(masks: Tensor | Sequence[Tensor | None]) -> Tensor | list[Tensor | None]:
    if isinstance(masks, Tensor):
        return masks.detach().cpu()
    return [None if mask is None else mask.detach().cpu() for mask in masks]
