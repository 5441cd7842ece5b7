"""Extreme points: the left-most, top-most, right-most and bottom-most pixels of an object (DEXTR, Sec. 3.1).

Masks are (H, W) of 0 and not 0; points come as (4, 2) float32, rows left, top, right, bottom, each (x, y) in pixels
of the mask. An empty mask raises ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.clicks.points import EXTREME_KINDS, Clicked, SimulatedPoints, Target


def tight_box(mask: NDArray) -> NDArray[np.int64]:
    """The object's own box (x_min, y_min, x_max, y_max), both ends inclusive."""
    x, y, width, height = cv2.boundingRect(mask if mask.dtype == np.uint8 else (mask > 0).astype(np.uint8))
    if width == 0:
        raise ValueError(
            f"extreme points need a non-empty mask, got an empty one of size {mask.shape}; "
            "filter empty objects in the reader"
        )
    return np.array([x, y, x + width - 1, y + height - 1])


def side_candidates(mask: NDArray, band: int = 0) -> list[NDArray[np.int64]]:
    """For left, top, right, bottom: all pixels (n, 2) of the mask at most `band` pixels inward of that side.

    Sorted along the side first (by y for left and right, by x for top and bottom), then inward.
    """
    x_min, y_min, x_max, y_max = tight_box(mask)
    candidates = []
    for horizontal, first, last, inward in (
        (True, x_min, min(x_min + band, x_max), 1),
        (False, y_min, min(y_min + band, y_max), 1),
        (True, max(x_max - band, x_min), x_max, -1),
        (False, max(y_max - band, y_min), y_max, -1),
    ):
        if horizontal:
            strip = mask[y_min : y_max + 1, first : last + 1][:, ::inward]
            along, depth = np.divmod(np.flatnonzero(strip), strip.shape[1])
            x, y = (first + depth if inward > 0 else last - depth), y_min + along
        else:
            strip = mask[first : last + 1, x_min : x_max + 1].T[:, ::inward]
            along, depth = np.divmod(np.flatnonzero(strip), strip.shape[1])
            x, y = x_min + along, (first + depth if inward > 0 else last - depth)
        candidates.append(np.stack([x, y], axis=1))
    return candidates


def extreme_points(mask: NDArray) -> NDArray[np.float32]:
    """The extreme points without chance: among the pixels of a side, the middle one (the lower of two)."""
    return np.stack([side[(len(side) - 1) // 2] for side in side_candidates(mask)]).astype(np.float32)


def band_points(mask: NDArray, band: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Extreme points as DEXTR's code draws them: for each side any object pixel of a band of `band` pixels (5).

    The points always lie on the object, and far along a straight side they may. With a band of 0 they are still drawn,
    among the pixels of the outermost row or column.
    """
    sides = side_candidates(mask, band)
    return np.stack([side[rng.integers(len(side))] for side in sides]).astype(np.float32)


def jittered_points(mask: NDArray, jitter: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Extreme points as DEXTR's paper words it: the true ones, "jittered by 10 pixels" (Sec. 3.4).

    Each coordinate moves uniformly within +-`jitter` and stays inside the mask's frame; a point may leave the object.
    """
    height, width = mask.shape
    moved = extreme_points(mask) + rng.uniform(-jitter, jitter, (4, 2))
    return np.clip(moved, 0, [width - 1, height - 1]).astype(np.float32)


def without_crowded(points: NDArray, keep: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Which of the points (K, 2) are left, in their order, when a user places only `keep` of them, at least one.

    As FAIRS drops the fourth (Sec. 4.3): of the two closest points either one is lost, by chance, as is the pair among
    equally close ones. For still fewer points the paper names no rule; we repeat this one, which keeps them far apart.
    """
    left = np.arange(len(points))
    while len(left) > keep:
        first, second = np.triu_indices(len(left), 1)
        squared = np.square(points[left[first]] - points[left[second]]).sum(axis=1)
        closest = np.flatnonzero(squared == squared.min())
        pair = closest[rng.integers(len(closest))]
        left = np.delete(left, (first, second)[rng.integers(2)][pair])
    return left


class ExtremePoints(SimulatedPoints):
    """The extreme points of an object as a recipe simulates them: all four, or fewer of them.

    Args:
        rule: `exact`, the extreme points themselves; `band`, DEXTR's code, any object pixel within `pixels` of its
            side; `jitter`, DEXTR's paper and FAIRS, the extreme points moved by up to `pixels` in x and y.
        pixels: of the crop.
        counts: how many points an object gets, 1 to 4, drawn for each from these; see `without_crowded`.
    """

    def __init__(
        self,
        rule: Literal["exact", "band", "jitter"] = "exact",
        pixels: float = 0.0,
        counts: Sequence[int] = (4,),
    ) -> None:
        if not counts or not set(counts) <= {1, 2, 3, 4}:
            raise ValueError(f"counts of extreme points are some of 1, 2, 3 and 4, got {list(counts)}")
        self.rule, self.pixels, self.counts = rule, pixels, tuple(counts)

    @staticmethod
    def in_words(arguments: Mapping[str, Any]) -> str:
        """`band 5 px, 3 or 4 points`."""
        rule, pixels = str(arguments.get("rule", "exact")), arguments.get("pixels")
        counts = [*arguments.get("counts", [4])]
        moved = f"{rule} {pixels:g} px" if pixels else rule
        return moved if counts == [4] else f"{moved}, {' or '.join(map(str, counts))} points"

    def __call__(self, target: Target, draw: np.random.Generator) -> Clicked:
        points, kinds = self._all(target.mask, draw), np.array(EXTREME_KINDS, np.int64)
        count = self.counts[draw.integers(len(self.counts))] if len(self.counts) > 1 else self.counts[0]
        left = without_crowded(points, count, draw)
        return points[left], kinds[left]

    def _all(self, mask: NDArray[np.uint8], draw: np.random.Generator) -> NDArray[np.float32]:
        if self.rule == "exact":
            return extreme_points(mask)
        if self.rule == "band":
            return band_points(mask, round(self.pixels), draw)
        return jittered_points(mask, self.pixels, draw)
