"""Exact Euclidean distances on masks, for click rules and guidance alike."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))  # n times the cross is the diamond of radius n


def squared_distance(inside: NDArray) -> NDArray[np.float32]:
    """Squared distance of every pixel of a mask (H, W), bool or uint8, to the nearest False one; there must be one.

    Whole numbers: OpenCV's roots differ in the last bit with where an array lies in memory, their squares do not.
    """
    distance = cv2.distanceTransform(as_bytes(inside), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.rint(np.multiply(distance, distance, out=distance), out=distance)


def as_bytes(mask: NDArray) -> NDArray[np.uint8]:
    """A mask of bool or uint8 as OpenCV takes it."""
    return np.ascontiguousarray(mask).view(np.uint8)
