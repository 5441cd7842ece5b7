"""What a click can be, and the clicks of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor


class PointKind(IntEnum):
    """The kind of a click. The first four are extreme points, in the order of a box."""

    PADDING = -1
    LEFT = 0
    TOP = 1
    RIGHT = 2
    BOTTOM = 3
    INSIDE = 4
    OUTSIDE = 5
    POSITIVE = 6
    NEGATIVE = 7


EXTREME_KINDS = (PointKind.LEFT, PointKind.TOP, PointKind.RIGHT, PointKind.BOTTOM)


@dataclass
class Points:
    """Clicks of a batch of objects: `xy` (B, K, 2) in crop pixels, `kinds` (B, K), padded, and how large the crops are.

    `scale` (B, 2): crop pixels per pixel of the (augmented) image, along x and y.
    """

    xy: Tensor
    kinds: Tensor
    scale: Tensor

    @property
    def valid(self) -> Tensor:
        """(B, K) bool: True at clicks, False at padding."""
        return self.kinds != PointKind.PADDING
