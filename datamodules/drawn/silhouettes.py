"""Shapes that fill a box, and pairs of them in one box.

Silhouettes are drawn large, cut to their own extent and shrunk to the box they must fill. So every silhouette touches
all four sides of its box, and two of them in one box can only be told apart by *where* they touch: by extreme points.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

CANVAS = 160  # silhouettes are drawn on a square of this side, then shrunk

Silhouette = Callable[[Generator, NDArray[np.uint8]], None]


def _at(*fractions: float) -> NDArray[np.int32]:
    """Fractions x, y, x, y, ... of the canvas as points for OpenCV, with room around them."""
    return (np.array(fractions).reshape(-1, 2) * CANVAS * 0.7 + CANVAS * 0.15).astype(np.int32)


def _stroke(canvas: NDArray[np.uint8], width: float, *fractions: float) -> None:
    cv2.polylines(canvas, [_at(*fractions)], False, 255, int(width * CANVAS))


def _bar(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    bend = rng.uniform(-0.12, 0.12)
    _stroke(canvas, rng.uniform(0.20, 0.30), 0, 0, 0.5 + bend, 0.5 - bend, 1, 1)


def _ess(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    low, high = rng.uniform(0.05, 0.3), rng.uniform(0.7, 0.95)
    width, turn, back = rng.uniform(0.18, 0.26), rng.uniform(0.5, 0.8), rng.uniform(0.2, 0.5)
    _stroke(canvas, width, 0, low, turn, 0, 0.5, 0.5, back, 1, 1, high)


def _bolt(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    _stroke(canvas, rng.uniform(0.18, 0.26), 0.1, 0, 0, rng.uniform(0.5, 0.7), 1, rng.uniform(0.3, 0.5), 0.9, 1)


def _arc(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    centre, start = CANVAS // 2, rng.uniform(15, 75)
    axes = (int(CANVAS * 0.33), int(CANVAS * rng.uniform(0.25, 0.33)))
    end, thickness = start + rng.uniform(200, 250), int(CANVAS * 0.2)
    cv2.ellipse(canvas, (centre, centre), axes, angle=0, startAngle=start, endAngle=end, color=255, thickness=thickness)


def _tilted(rng: Generator, canvas: NDArray[np.uint8], slim: float, thickness: int) -> None:
    centre, long = CANVAS // 2, CANVAS * 0.36
    angle, axes = rng.uniform(35, 55), (int(long), int(long * slim))
    cv2.ellipse(canvas, (centre, centre), axes, angle=angle, startAngle=0, endAngle=360, color=255, thickness=thickness)


def _ring(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    _tilted(rng, canvas, rng.uniform(0.50, 0.62), int(CANVAS * rng.uniform(0.13, 0.16)))


def _leaf(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    _tilted(rng, canvas, rng.uniform(0.38, 0.5), -1)


def _half(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    x, y = rng.uniform(0.3, 0.6, 2)
    cv2.fillPoly(canvas, [_at(0, 0, 0.12, 0, x, y, 1, 0.88, 1, 1, 0.2, 1, 0, 0.8)], 255)


def _quad(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    left, top, right, bottom = rng.uniform(0.05, 0.3, 4)
    cv2.fillPoly(canvas, [_at(0, left, top, 0, 1, 1 - right, 1 - bottom, 1)], 255)


def _plus(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    x, y = rng.uniform(0.35, 0.65, 2)
    width = rng.uniform(0.2, 0.28)
    _stroke(canvas, width, x, 0, x, 1)
    _stroke(canvas, width, 0, y, 1, y)


def _blob(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = 0.36 + sum(rng.uniform(0, 0.08) * np.sin(k * angle + rng.uniform(0, 6.3)) for k in (2, 3, 5))
    cv2.fillPoly(canvas, [_at(*np.stack([0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)], 1).ravel())], 255)


def _person(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    lean = rng.uniform(-0.12, 0.12)
    cv2.circle(canvas, tuple(map(int, _at(0.5 + lean, 0.1)[0])), int(0.1 * CANVAS), 255, -1)
    cv2.fillPoly(canvas, [_at(0.3 + lean, 0.22, 0.7 + lean, 0.22, 0.62, 0.65, 0.38, 0.65)], 255)
    _stroke(canvas, 0.09, 0.15, rng.uniform(0.25, 0.55), 0.5 + lean, 0.28, 0.85, rng.uniform(0.25, 0.55))
    _stroke(canvas, 0.12, rng.uniform(0.2, 0.35), 1, 0.5, 0.55, rng.uniform(0.65, 0.8), 1)


def _car(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    front, back, roof = rng.uniform(0.15, 0.3), rng.uniform(0.75, 0.95), rng.uniform(0.25, 0.32)
    body = _at(0, 0.55, front, 0.5, front + 0.1, roof, back - 0.12, roof, back, 0.5, 1, 0.53, 1, 0.72, 0, 0.72)
    cv2.fillPoly(canvas, [body], 255)
    for x in (0.22, 0.78):
        cv2.circle(canvas, tuple(map(int, _at(x, 0.72)[0])), int(0.085 * CANVAS), 255, -1)


def _boat(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    mast = rng.uniform(0.35, 0.65)
    cv2.fillPoly(canvas, [_at(0, 0.68, 1, 0.68, 0.8, 1, 0.2, 1)], 255)
    cv2.fillPoly(canvas, [_at(mast, 0, mast + 0.35, 0.6, mast - 0.35, 0.6)], 255)
    _stroke(canvas, 0.05, mast, 0, mast, 0.8)


def _bottle(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    neck, shoulder = rng.uniform(0.07, 0.12), rng.uniform(0.3, 0.5)
    cv2.fillPoly(
        canvas, [_at(0.25, 1, 0.25, shoulder, 0.5 - neck, 0.25, 0.5 + neck, 0.25, 0.75, shoulder, 0.75, 1)], 255
    )
    _stroke(canvas, 1.4 * neck, 0.5, 0, 0.5, 0.4)


def _tv(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    low = rng.uniform(0.7, 0.8)
    cv2.fillPoly(canvas, [_at(0, 0.1, 1, 0.1, 1, low, 0, low)], 255)
    _stroke(canvas, 0.08, 0.5, low, 0.5, 1, 0.25, 1, 0.75, 1)
    inner = rng.uniform(0.25, 0.4)
    cv2.fillPoly(canvas, [_at(inner, 0.28, 1 - inner, 0.28, 1 - inner, low - 0.18, inner, low - 0.18)], 0)  # its screen


SILHOUETTES: dict[str, Silhouette] = {
    "bar": _bar,
    "ess": _ess,
    "bolt": _bolt,
    "arc": _arc,
    "ring": _ring,
    "leaf": _leaf,
    "half": _half,
    "quad": _quad,
    "plus": _plus,
    "blob": _blob,
    "person": _person,
    "car": _car,
    "boat": _boat,
    "bottle": _bottle,
    "tv": _tv,
}
SHARING = ("bar", "ess", "bolt", "arc", "ring", "leaf", "half", "quad", "plus")  # leave room for another in their box
UPRIGHT = ("person", "car", "boat", "bottle", "tv")


def silhouette(rng: Generator, name: str, size: tuple[int, int]) -> NDArray[np.float32]:
    """The named silhouette, wobbled and mirrored at random, filling a box of this size (h, w): coverage in [0, 1]."""
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    SILHOUETTES[name](rng, canvas)
    turns = 0 if name in UPRIGHT else int(rng.integers(4))
    canvas = np.ascontiguousarray(np.rot90(canvas, turns))
    if rng.random() < 0.5:
        canvas = np.ascontiguousarray(canvas[:, ::-1])
    canvas = _wobbled(rng, canvas)
    x, y, w, h = cv2.boundingRect(canvas)
    filling = cv2.resize(canvas[y : y + h, x : x + w], size[::-1], interpolation=cv2.INTER_AREA)
    return filling.astype(np.float32) / np.float32(255)


def _wobbled(rng: Generator, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grid = np.arange(CANVAS, dtype=np.float32)
    shift_x = rng.uniform(0, 4) * np.sin(grid * rng.uniform(0.04, 0.09) + rng.uniform(0, 6.3))
    shift_y = rng.uniform(0, 4) * np.sin(grid * rng.uniform(0.04, 0.09) + rng.uniform(0, 6.3))
    map_x = (grid[None, :] + shift_x[:, None]).astype(np.float32)
    map_y = (grid[:, None] + shift_y[None, :]).astype(np.float32)
    return cv2.remap(canvas, map_x, map_y, cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def pair_sharing_a_box(rng: Generator, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two silhouettes that fill the same box of this size, the second painted over the first, and both stay visible.

    What is left of the first still spans the box, and the two touch its sides at other places: the box cannot say which
    of them is meant, the extreme points can.
    """
    for _ in range(40):
        names = rng.choice(SHARING, 2)
        first, second = silhouette(rng, names[0], size), silhouette(rng, names[1], size)
        below, above = (first >= 0.5) & (second < 0.5), second >= 0.5
        if below.sum() > 0.45 * (first >= 0.5).sum() and _sides_differ(below, above):
            return first, second
    while True:  # two crossing diagonals always do
        first = silhouette(rng, "bar", size)
        if _sides_differ((first >= 0.5) & (first[:, ::-1] < 0.5), first[:, ::-1] >= 0.5):
            return first, first[:, ::-1]


def _sides_differ(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> bool:
    """Whether both masks span (nearly) the same box and touch at least three of its sides at different places."""
    boxes = [cv2.boundingRect(mask.view(np.uint8)) for mask in (first, second)]
    if any(min(w / first.shape[1], h / first.shape[0]) < 0.93 for _, _, w, h in boxes):
        return False
    gaps = []
    for axis, side in itertools.product((0, 1), (0, -1)):
        middles = []
        for mask in (first, second):
            touched = np.flatnonzero(mask.any(axis=1 - axis))[side]
            middles.append(np.flatnonzero(mask.take(touched, axis)).mean() / mask.shape[1 - axis])
        gaps.append(abs(middles[0] - middles[1]))
    return sum(gap > 0.25 for gap in gaps) >= 3
