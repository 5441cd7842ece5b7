"""Masks as a video method predicts them: mostly right, shifted, bitten into, with false blobs beside the object."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


def predicted(rng: Generator, truth: NDArray[np.bool_], iou: float) -> NDArray[np.bool_]:
    """A mask (H, W) with errors, whose IoU with a truth that is not empty lies a little below `iou` in (0, 1].

    One error is added to another until that is reached: a shift of the whole by some pixels (only in what is far off),
    then at random discs that erase a piece of the object or invent one near it.
    """
    mask = truth.copy()
    reach = np.sqrt(truth.sum())  # the side of a square of the same area
    if iou < 0.8:
        mask = _shifted(mask, rng.integers(-2, 3, 2))
    while (mask & truth).sum() > iou * (mask | truth).sum():
        erases = rng.random() < 0.5
        y, x = rng.choice(np.argwhere(truth)) + (0 if erases else rng.normal(0, reach / 2, 2))
        disc = np.zeros(mask.shape, np.uint8)
        cv2.circle(disc, (int(x), int(y)), max(1, int(reach * rng.uniform(0.08, 0.2))), 1, -1)
        mask = mask & (disc == 0) if erases else mask | (disc > 0)
    return mask


def _shifted(mask: NDArray[np.bool_], by: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Moved by (x, y) whole pixels; what comes in from outside is empty."""
    to = np.array([[1, 0, by[0]], [0, 1, by[1]]], np.float32)
    return cv2.warpAffine(mask.astype(np.uint8), to, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0
