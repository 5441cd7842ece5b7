"""How whole images get their size: classes that a recipe names, each says where an image comes to lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules import geometry
from datamodules.mask_runs import MaskRuns, drawn_masks
from datamodules.ranges import COUNT, POSITIVE, Range

Size = tuple[int, int]  # (H, W)
LEVEL = Range(0, 255, whole=True)


@dataclass(frozen=True)
class Placement:
    """Where an image comes to lie: resized, then a window of it is cut out, then it is flipped where that is said.

    Args:
        original: (H, W) of the image's file.
        scaled: (H, W) that it is resized to.
        first: (y, x) of the window's first pixel in the scaled image.
        size: (H, W) of the window: the image's own size in a batch.
        canvas: (H, W) of the least grid to put it on.
        flip: whether left and right change places.
    """

    original: Size
    scaled: Size
    first: tuple[int, int]
    size: Size
    canvas: Size
    flip: bool = False

    def show(self, pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Write what is seen of an image (H, W, 3) into `out`, of the window's size.

        Linear, not smoothed before it is made smaller, as in mmdetection. Flipped is what is smaller, the image or its
        window: pixels differ by rounding at most.
        """
        (y, x), (height, width) = self.first, self.size
        early = self.flip and self.original[0] * self.original[1] < height * width
        if early:
            pixels, x = np.asarray(cv2.flip(pixels, 1)), self.scaled[1] - width - x
        late = self.flip and not early
        if self.scaled == self.size and not late:
            cv2.resize(pixels, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
            return
        window = geometry.resize(pixels, self.scaled, "linear")[y : y + height, x : x + width]
        out[...] = window[:, ::-1] if late else window

    def boxes(self, boxes: NDArray) -> NDArray[np.float32]:
        """Boxes (n, 4) xyxy, x2 and y2 exclusive, there: cut where the window ends, so that some may have no inside."""
        factors = np.array([self.scaled[1] / self.original[1], self.scaled[0] / self.original[0]] * 2)
        moved = boxes * factors - np.array([self.first[1], self.first[0]] * 2)
        moved = np.clip(moved, 0, np.array([self.size[1], self.size[0]] * 2))
        if self.flip:
            moved[:, [0, 2]] = self.size[1] - moved[:, [2, 0]]
        return moved.astype(np.float32)

    def masks(
        self, runs: MaskRuns | None, grid: Size, wanted: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Masks of the image in the corner of a grid (H, W): which of the `wanted` are seen, and these as (m, H, W).

        Interpolation is that of masks in mmdetection, OpenCV's nearest: the pixel at x is that at floor(x / factor).
        """
        if runs is None:
            return wanted, np.zeros((0, *grid), np.uint8)
        rows, columns = (_sources(self, axis) for axis in (0, 1))
        return drawn_masks(runs, rows, columns, grid, wanted, flip=self.flip)


def _sources(placement: Placement, axis: int) -> NDArray[np.int64]:
    """Which row (axis 0) or column of the image each one of the window shows, before any flip."""
    scaled, original = placement.scaled[axis], placement.original[axis]
    places = np.arange(placement.first[axis], placement.first[axis] + placement.size[axis])
    return np.minimum((places * (original / scaled)).astype(np.int64), original - 1)


class Resizing(ABC):
    """Which size an image gets, and which part of it is seen.

    Attributes:
        fill: the value of pixels beyond the image in a batch.
        drawn: whether anything is drawn, so that it is none for the test.
    """

    fill: int = 0
    drawn: bool = True

    @abstractmethod
    def placed(self, size: Size, draw: np.random.Generator | None) -> Placement:
        """Where an image of this size comes to lie. `draw` is keyed by image and epoch; None at test."""


class ShortSide(Resizing):
    """The shorter side gets one of these lengths, the aspect ratio is kept, and the longer side is at most `longest`.

    SOLOv2 and Mask R-CNN: 640 to 800 in steps of 32 and 1333; 800 alone at test.

    Args:
        sides: lengths in pixels, one of them drawn per image and epoch.
        longest: in pixels; where it is exceeded, the shorter side becomes shorter than drawn.
        fill: value of pixels beyond the image in a batch.
    """

    def __init__(self, sides: Sequence[int] = (800,), longest: int = 1333, fill: int = 0) -> None:
        if not sides:
            raise ValueError("ShortSide needs at least one length of the shorter side, got none; [800] for one")
        self.sides = [COUNT.checked(side, "ShortSide: each of its sides") for side in sides]
        self.longest = COUNT.checked(longest, "ShortSide: longest")
        self.fill = LEVEL.checked(fill, "ShortSide: fill")
        self.drawn = len(self.sides) > 1

    def placed(self, size: Size, draw: np.random.Generator | None) -> Placement:
        side = self.sides[0] if draw is None else self.sides[int(draw.integers(len(self.sides)))]
        scaled = scaled_by(size, min(side / min(size), self.longest / max(size)))
        return Placement(size, scaled, first=(0, 0), size=scaled, canvas=scaled)

    @staticmethod
    def in_words(arguments: dict[str, Any]) -> str:
        """For reports."""
        sides = arguments.get("sides", [800])
        return f"shorter side {' or '.join(map(str, sides))} px, longer at most {arguments.get('longest', 1333)} px"


class LargeScaleJitter(Resizing):
    """Large scale jittering (Ghiasi et al., CVPR 2021), as Mask2Former trains: resized, cropped, padded.

    The longer side of the image gets a drawn factor of `size`. Where a side of the scaled image exceeds `size`, a
    window of it is drawn; where it falls short, `fill` follows on the right and at the bottom. Objects of which the
    window shows nothing are left out; an image may be left with none, and is used.

    Args:
        size: of the square grid, in pixels.
        scale: range of the factor.
        fill: value of pixels beyond the image.
    """

    def __init__(self, size: int = 1024, scale: Sequence[float] = (0.1, 2.0), fill: int = 128) -> None:
        self.size = COUNT.checked(size, "LargeScaleJitter: size")
        if len(scale) != 2 or scale[0] > scale[1]:
            raise ValueError(
                f"LargeScaleJitter: scale must be the least and the largest factor, such as [0.1, 2.0], got {scale}"
            )
        self.scale = [POSITIVE.checked(factor, "LargeScaleJitter: each end of its scale") for factor in scale]
        self.fill = LEVEL.checked(fill, "LargeScaleJitter: fill")

    def placed(self, size: Size, draw: np.random.Generator | None) -> Placement:
        if draw is None:
            raise ValueError("LargeScaleJitter draws, so that it is for training alone; test with ShortSide")
        scaled = scaled_by(size, draw.uniform(*self.scale) * self.size / max(size))
        first = tuple(int(draw.integers(max(side - self.size, 0) + 1)) for side in scaled)
        return Placement(
            size,
            scaled,
            first=(first[0], first[1]),
            size=(min(scaled[0], self.size), min(scaled[1], self.size)),
            canvas=(self.size, self.size),
        )

    @staticmethod
    def in_words(arguments: dict[str, Any]) -> str:
        """For reports."""
        least, most = arguments.get("scale", (0.1, 2.0))
        return f"large scale jitter, {least} to {most} of {arguments.get('size', 1024)} px"


def scaled_by(size: Size, factor: float) -> Size:
    """(H, W) times a factor, rounded, at least one pixel each."""
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width
