"""What an instance segmentation network answers about one image."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Detections(NamedTuple):
    """The objects found in one image, the best first.

    Args:
        scores: (n,) float32 in [0, 1], descending.
        labels: (n,) int64, places in the data's categories, from 0.
        masks: (n, H, W) bool, at the size of the image's file.
    """

    scores: Tensor
    labels: Tensor
    masks: Tensor
