"""What a user gives before the first mask: extreme points, or an inside point and a box, or nothing yet."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from datamodules import geometry
from datamodules.clicks.points import EXTREME_KINDS, PointKind, Target
from datamodules.recipe import SampleRecipe
from datamodules.rendering import Views
from datamodules.views import whole_box

NUMBERS = ("no", "one", "two", "three", "four")


@dataclass(frozen=True)
class First:
    """What a user gives before the first mask, in pixels of the image: points (K, 2), their kinds, a box xyxy."""

    xy: NDArray[np.float64]
    kinds: tuple[PointKind, ...]
    box: NDArray[np.int64]

    def on_grid(self, views: Views) -> NDArray[np.float32]:
        """The points in whole pixels of the crop.

        Extreme points are cut off, as in DEXTR's demonstration; inside and outside points are rounded.
        """
        height, width = views.image.shape[:2]
        if set(self.kinds) <= set(EXTREME_KINDS):
            return points_in_crop(self.xy, views.crop_box, (height, width)).astype(np.float32)
        return np.floor(geometry.apply(views.to_crop, self.xy) + 0.5).astype(np.float32)


@dataclass(frozen=True)
class Opening:
    """How a method's user begins: the `kinds` of the first points in their order; without any, with plain clicks."""

    kinds: tuple[PointKind, ...]

    @classmethod
    def of(cls, recipe: SampleRecipe) -> Opening:
        """What a recipe's simulated user clicks on a drawn disc.

        Points that people recorded are only known on their own objects; then training's, which are of the same kinds.
        """
        y, x = np.mgrid[:65, :65]
        disc = Target(((x - 32) ** 2 + (y - 32) ** 2 < 400).astype(np.uint8))
        for simulated in (recipe.test_points, recipe.train_points):
            with contextlib.suppress(ValueError, OSError):
                _, kinds = simulated(disc, np.random.default_rng(0))
                return cls(tuple(PointKind(int(kind)) for kind in kinds))
        raise ValueError("the run's recipe simulates no points on a plain disc, so that nobody knows what it asks for")

    @property
    def extremes(self) -> int:
        """How many extreme points the method begins with."""
        return sum(kind in EXTREME_KINDS for kind in self.kinds)

    @property
    def asked(self) -> dict[str, str]:
        """What a user gives before the first mask: the option's name and, in words, what it is."""
        words = {}
        if self.extremes:
            words["points"] = f"{NUMBERS[self.extremes]} extreme points"
        if PointKind.INSIDE in self.kinds:
            words["inside"] = "an inside point"
        if PointKind.OUTSIDE in self.kinds:
            words["box"] = "a box around the object"
        return words

    def __call__(self, size: tuple[int, int], **given: ArrayLike) -> First:
        """What was given before the first mask; raises ValueError unless it is what the method begins with."""
        found = {name: np.asarray(value, np.float64) for name, value in given.items()}
        came = [name for name, value in found.items() if value.size]
        unwanted, missing = [name for name in came if name not in self.asked], [n for n in self.asked if n not in came]
        if unwanted or missing:
            raise ValueError(self._refusal(unwanted, missing or list(self.asked)))
        if not self.asked:
            return First(np.zeros((0, 2)), (), whole_box(size))
        if self.extremes:
            clicked, kinds = extreme_order(found["points"], size, self.extremes)
            return First(clicked, kinds, around(clicked))
        return self._inside_and_box(found["inside"], found["box"], size)

    def _inside_and_box(self, inside: NDArray, corners: NDArray, size: tuple[int, int]) -> First:
        if corners.size != 4:
            raise ValueError(f"expected a box x0,y0,x1,y1, two of its opposite corners, got {corners.tolist()}")
        box = around(within(corners.reshape(2, 2), size))
        x_min, y_min, x_max, y_max = box.tolist()
        xy = [[x, y] for x in (x_min, x_max) for y in (y_min, y_max)]
        kinds = [PointKind.OUTSIDE] * 4
        if PointKind.INSIDE in self.kinds:
            if inside.size != 2:
                raise ValueError(f"expected one inside point x,y, got {inside.tolist()}")
            (point,) = within(inside.reshape(1, 2), size).tolist()
            if not (x_min <= point[0] <= x_max and y_min <= point[1] <= y_max):
                raise ValueError(f"the inside point {point} lies outside of its box {box.tolist()}")
            xy, kinds = [point, *xy], [PointKind.INSIDE, *kinds]
        return First(np.array(xy, np.float64), tuple(kinds), box)

    def _refusal(self, unwanted: Sequence[str], missing: Sequence[str]) -> str:
        """One sentence on what the method begins with, and which options to give."""
        options = {
            "points": "--points" + " x,y" * self.extremes,
            "inside": "--inside x,y",
            "box": "--box x0,y0,x1,y1",
        }
        words = {"points": "extreme points", "inside": "an inside point", "box": "a box"}
        begins = " and ".join(self.asked.values()) or "clicks"
        but = f", not {' and '.join(words[name] for name in unwanted)}" if unwanted else ""
        give = " ".join(options[name] for name in missing) or "--positive and --negative ones"
        return f"this run's method begins with {begins}{but}; give {give}"


def within(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Points (K, 2) that lie in an image of size (H, W). Raises ValueError when one does not."""
    height, width = size
    if not ((points >= 0) & (points <= [width - 1, height - 1])).all():
        raise ValueError(f"a point lies outside the image of {width} x {height} pixels: {points.tolist()}")
    return points


def around(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """The tight box xyxy of points (K, 2), in whole pixels."""
    pixels = np.floor(points + 0.5).astype(np.int64)
    return np.concatenate([pixels.min(0), pixels.max(0)])


def extreme_order(
    points: NDArray[np.float64], size: tuple[int, int], count: int = 4
) -> tuple[NDArray[np.float64], tuple[PointKind, ...]]:
    """Clicks in the order left, top, right, bottom, and which of these they are, whatever order they came in.

    Of three, one side is missing (FAIRS, Sec. 4.3): that without which the others are farthest out. Raises ValueError
    for another number of points than the method takes.
    """
    if points.shape != (count, 2):
        came = len(points) if points.ndim == 2 else points.tolist()
        raise ValueError(f"expected {NUMBERS[count]} points x,y (left, top, right, bottom of the object), got {came}")
    x, y = within(points, size).T - (points.min(0) + points.max(0))[:, None] / 2
    side, click = linear_sum_assignment(np.stack([x, y, -x, -y]))  # one click a side, also when one is extreme in two
    return points[click], tuple(EXTREME_KINDS[i] for i in side)


def points_in_crop(
    points: NDArray[np.float64], crop_box: NDArray[np.int64], size: tuple[int, int]
) -> NDArray[np.int64]:
    """Clicks as whole pixels of the crop resized to (H, W), cut off as in the authors' demonstration."""
    x_min, y_min, x_max, y_max = crop_box
    extent = np.array([x_max - x_min + 1, y_max - y_min + 1])
    return np.floor((points - [x_min, y_min]) * np.array(size[::-1]) / extent).astype(np.int64)
