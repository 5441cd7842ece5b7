"""From logits on a crop's grid back to a mask in the image, and where a prediction counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules import geometry
from datamodules.batch import Batch


def box_kept(kind: str, batch: Batch, i: int) -> NDArray[np.int64] | None:
    """The box, in pixels of the image, outside of which an object's predictions are dropped; None: they are kept.

    `tight`: the object's own, as published for DEXTR. `clicked`: that of the first clicks, which is all that a user of
    IOG says of it. `crop`: wherever the network saw the object, as published for IOG.
    """
    if kind == "clicked":
        valid, to_image = batch.clicks.valid[i].cpu().numpy(), cv2.invertAffineTransform(batch.to_crop[i].cpu().numpy())
        if valid.any():
            places = np.round(geometry.apply(to_image, batch.points[i].cpu().numpy()[valid]), 3)
            return np.concatenate([np.floor(places.min(0)), np.ceil(places.max(0))]).astype(np.int64)
    return batch.box[i].cpu().numpy() if kind == "tight" else None


def stretched(pasted: NDArray[np.float32], beyond: bool) -> NDArray[np.float32]:
    """A pasted map min-max stretched to 256 levels of 0..1: what happens when DEXTR's code saves it as an image.

    `beyond`: the image goes on around `pasted`, with zeros.
    """
    low, high = float(pasted.min()), float(pasted.max())
    if beyond:
        low, high = min(low, 0.0), max(high, 0.0)
    return (np.round((pasted - low) / max(high - low, 1e-8) * 255) / 255).astype(np.float32)


@dataclass(frozen=True)
class Paste:
    """How logits on the crops' grid become masks in full images.

    Args:
        threshold: of the probability, exceeded by the object.
        interpolation: of a crop's probability on its way back.
        stretch: see `stretched`.
        box: outside of which box a prediction is dropped, see `box_kept`.
    """

    threshold: float = 0.5
    interpolation: str = "cubic"
    stretch: bool = False
    box: str = "crop"

    @property
    def logit(self) -> float:
        """The threshold before the sigmoid: `logits > logit` needs no probability where nothing is resized."""
        if self.threshold <= 0 or self.threshold >= 1:
            return inf if self.threshold >= 1 else -inf
        return log(self.threshold / (1 - self.threshold))

    def pasted(
        self, probability: NDArray[np.float32], batch: Batch, i: int
    ) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
        """The part of its image (rows, columns) that an object's prediction can change, and what it is there.

        A part without pixels where the box that counts lies beside the crop.
        """
        crop_box, box = batch.crop_box[i].cpu().numpy(), box_kept(self.box, batch, i)
        size = (int(batch.image_size[i, 0]), int(batch.image_size[i, 1]))
        window = geometry.window_in_image(crop_box, box, size)
        if window is None:
            return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32)
        pasted = geometry.window_of(probability, crop_box, window, self.interpolation)
        return window, stretched(pasted, beyond=pasted.size < size[0] * size[1]) if self.stretch else pasted

    def masks(
        self, logits: Tensor, above: Tensor, batch: Batch, sizes: Sequence[tuple[int, int]]
    ) -> list[NDArray[np.uint8]]:
        """One mask of 0 and 1 per object, in its image of these sizes (H, W); `above` is `logits > self.logit`."""
        crop_boxes = batch.crop_box.cpu().numpy()
        plain = [not self.stretch and self._is_image(batch, box, size) for box, size in zip(crop_boxes, sizes)]
        on_grid = above[:, 0].cpu().numpy().view(np.uint8)
        probability = None if all(plain) else torch.sigmoid(logits[:, 0].float()).cpu().numpy()
        found = []
        for i, size in enumerate(sizes):
            if plain[i] and self.box == "crop":
                found.append(on_grid[i])
                continue
            full = np.zeros(size, np.uint8)
            if plain[i]:
                window = geometry.window_in_image(crop_boxes[i], box_kept(self.box, batch, i), size)
                if window is not None:
                    full[window] = on_grid[i][window]
            else:
                assert probability is not None
                window, pasted = self.pasted(probability[i], batch, i)
                full[window] = pasted > self.threshold
            found.append(full)
        return found

    @staticmethod
    def _is_image(batch: Batch, crop_box: NDArray, size: tuple[int, int]) -> bool:
        """Whether the crop is the image itself, pixel for pixel."""
        whole = [0, 0, size[1] - 1, size[0] - 1]
        return batch.size == size and bool((crop_box == whole).all())
