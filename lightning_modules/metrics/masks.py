"""Quality of a mask: pure functions on arrays of one object or tensors of a batch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def crop_iou(prediction: Tensor, mask: Tensor, void: Tensor, empty: float = 1.0) -> Tensor:
    """(B,) IoU on the crop's grid, void left out; `empty` where both are. Progress only: tables paste back first."""
    labelled = void <= 0.5
    prediction, mask = prediction.bool() & labelled, (mask >= 0.5) & labelled
    intersection = (prediction & mask).flatten(1).sum(1)
    union = (prediction | mask).flatten(1).sum(1)
    return torch.where(union > 0, intersection / union.clamp_min(1), torch.full_like(union, empty, dtype=torch.float32))


def object_iou(prediction: NDArray, mask: NDArray, void: NDArray | None = None) -> float:
    """IoU of two (H, W) masks, pixels without label left out; 1 when both are empty outside of them."""
    prediction, mask = prediction.astype(bool), mask.astype(bool)
    if void is not None:
        labelled = ~void.astype(bool)
        prediction, mask = prediction & labelled, mask & labelled
    union = np.count_nonzero(prediction | mask)
    return np.count_nonzero(prediction & mask) / union if union else 1.0


def threshold_sweep(
    probability: NDArray[np.float32], mask: NDArray, void: NDArray | None, thresholds: NDArray, outside: int = 0
) -> NDArray[np.float64]:
    """IoU of `probability > t` for each ascending threshold, in one pass over the pixels.

    Args:
        probability, mask, void: (H, W) of the window in which something can be predicted.
        outside: object pixels (labelled) outside that window: they are missed at every threshold.
    Raises ValueError for a probability that is NaN: it would count as above all of them.
    """
    if np.isnan(probability).any():
        raise ValueError(f"a probability is NaN, of {np.isnan(probability).sum():,} of {probability.size:,} pixels")
    thresholds = thresholds.astype(probability.dtype)  # as `probability > t` does: 204 / 255 is not above 0.8
    level = np.searchsorted(thresholds, probability.ravel(), side="left")  # how many thresholds it exceeds
    inside = mask.ravel() > 0
    if void is not None:
        labelled = void.ravel() == 0
        level, inside = level[labelled], inside[labelled]
    bins = len(thresholds) + 1
    above_object = np.bincount(level[inside], minlength=bins)[::-1].cumsum()[::-1][1:]
    above = np.bincount(level, minlength=bins)[::-1].cumsum()[::-1][1:]
    union = above + np.count_nonzero(inside) + outside - above_object
    return np.where(union > 0, above_object / np.maximum(union, 1), 1.0)


def error_rate(prediction: NDArray, mask: NDArray, void: NDArray | None, box: NDArray) -> float:
    """GrabCut's error: misclassified pixels inside the box over labelled pixels inside it (DEXTR, Table 6)."""
    x_min, y_min, x_max, y_max = (int(v) for v in box)
    window = slice(y_min, y_max + 1), slice(x_min, x_max + 1)
    labelled = np.ones_like(mask[window], bool) if void is None else void[window] == 0
    wrong = (prediction[window].astype(bool) != mask[window].astype(bool)) & labelled
    return int(np.count_nonzero(wrong)) / max(1, int(np.count_nonzero(labelled)))
