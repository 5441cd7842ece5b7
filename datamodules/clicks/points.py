"""What a click can be, the clicks of a batch, and what a simulated user is asked for before the first prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
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
CORRECTIVE_KINDS = (PointKind.POSITIVE, PointKind.NEGATIVE)


def clicks_made(kinds: NDArray[np.int64]) -> int:
    """How many clicks of a user these points (K,) stand for: two of IOG's four corners follow from the others."""
    kinds = np.asarray(kinds)
    inferred = max(0, int((kinds == PointKind.OUTSIDE).sum()) - 2)
    return int((kinds != PointKind.PADDING).sum()) - inferred


def and_one(xy: NDArray, kinds: NDArray, click: NDArray, kind: int) -> tuple[NDArray, NDArray]:
    """Clicks (n, 2) with their kinds (n,), and one more, (1, 2), behind them."""
    return np.concatenate([xy, click]), np.append(kinds, kind)


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

    def of(self, *kinds: PointKind) -> Points:
        """The same clicks, all but those of these kinds turned into padding."""
        wanted = torch.zeros_like(self.valid)
        for kind in kinds:
            wanted |= self.kinds == kind
        return replace(self, kinds=self.kinds.masked_fill(~wanted, PointKind.PADDING))

    def since(self, seen: int) -> Points:
        """The clicks behind the first `seen` of every object."""
        return replace(self, xy=self.xy[:, seen:], kinds=self.kinds[:, seen:])

    def with_more(self, xy: Tensor, kinds: Tensor) -> Points:
        """The clicks, and behind them `xy` (B, K, 2) with their `kinds` (B, K), made like these."""
        more_xy, more_kinds = xy.to(self.xy), kinds.to(self.kinds)
        return replace(self, xy=torch.cat([self.xy, more_xy], dim=1), kinds=torch.cat([self.kinds, more_kinds], dim=1))


class Click(NamedTuple):
    """A pixel of the mask; positive means "this is object"."""

    x: int
    y: int
    positive: bool

    @property
    def kind(self) -> PointKind:
        """What it is among the points of an object."""
        return PointKind.POSITIVE if self.positive else PointKind.NEGATIVE


Clicked = tuple[NDArray[np.float32], NDArray[np.int64]]  # (K, 2) as (x, y) in pixels of the crop, and (K,) kinds


@dataclass
class Target:
    """An object on the crop's grid, as the simulated user sees it.

    Args:
        mask: (H, W) uint8 of 0 and 1, not empty.
        void: (H, W), 1 at pixels nobody labelled; None without any.
        others: gives the (H, W) label map of the image's other objects, 1, 2, ...; costs reading their masks. None
            where nobody knows them.
        native_id: what the object's data set calls it; points that people clicked are kept under it.
        to_crop: (2, 3) affine map from pixels of the image to those of the crop; None for the image itself.
        outline: gives the object's vertices (n, 2) as (x, y) in pixels of the image, in the order of their file, see
            `ObjectIndex.outline`; None where nobody knows them.
    """

    mask: NDArray[np.uint8]
    void: NDArray[np.uint8] | None = None
    others: Callable[[], NDArray[np.uint8]] | None = None
    native_id: str = ""
    to_crop: NDArray[np.float64] | None = None
    outline: Callable[[], NDArray] | None = None


class SimulatedPoints(ABC):
    """What the simulated user clicks before the first prediction, called once per object by a loader's worker."""

    @abstractmethod
    def __call__(self, target: Target, draw: np.random.Generator) -> Clicked:
        """Points in pixels of the crop and their kinds; `draw` is keyed by seed, epoch and object."""

    def box(self, native_id: str) -> NDArray[np.int64] | None:
        """The box xyxy, in pixels of the image, that the user has drawn around an object; None for that of its mask."""
        return None


class NoPoints(SimulatedPoints):
    """No click before the first prediction: the click benchmark's rule places the first one."""

    def __call__(self, target: Target, draw: np.random.Generator) -> Clicked:
        return np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
