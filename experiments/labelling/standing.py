"""What stands in for the mask of an object that a network finds nothing of: its box, or its extreme points, filled."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.clicks.points import EXTREME_KINDS, PointKind, Target
from datamodules.keys import rng
from datamodules.masks import mask_from_box
from experiments.composition.building import sample_recipe
from experiments.runs.node import Node

THIN = 2  # pixels: MAL drops objects that are no wider, or no higher; their masks say nothing of them


def is_thin(box: NDArray) -> bool:
    """Whether a box, inclusive xyxy, is so thin."""
    return bool((box[2:] - box[:2] + 1 <= THIN).any())


def filled_box(box: NDArray, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The pixels of a box, inclusive xyxy, inside an image (H, W): uint8 of 0 and 1.

    Of a box beside the image the nearest pixels, so that no object is lost.
    """
    last = np.tile([size[1] - 1, size[0] - 1], 2)
    return mask_from_box(np.clip(box, 0, last), size)


def filled_quadrilateral(xy: NDArray, kinds: Sequence[int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The quadrilateral of the extreme points among these (K, 2), its outline included, inside an image (H, W).

    The points are (x, y) in pixels of the image, of `kinds` (K,) in any order. Left, top, right and bottom lie on the
    sides of a box, so that in this order they go around it. Raises ValueError where one of the four is missing.
    """
    places = [np.flatnonzero(np.asarray(kinds) == kind) for kind in EXTREME_KINDS]
    if not all(len(place) for place in places):
        found = sum(len(place) > 0 for place in places)
        raise ValueError(f"a quadrilateral is of the four extreme points, got {found} of them; fill the box instead")
    corners = np.floor(np.asarray(xy)[[int(place[0]) for place in places]] + 0.5)
    corners = np.clip(corners, 0, np.array([size[1] - 1, size[0] - 1])).astype(np.int32)
    mask = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(mask, corners, 1)
    return mask


def check_quadrilaterals(node: Node) -> None:
    """Raise ValueError, saying what to set, when a label run's first points are not the four extreme points."""
    recipe, square = sample_recipe(node.config), np.zeros((64, 64), np.uint8)
    square[20:40, 24:44] = 1
    kinds = set(EXTREME_KINDS)  # where no rule can be asked
    for rule in (recipe.train_points, recipe.test_points):  # points that people recorded know no drawn square
        with contextlib.suppress(ValueError, OSError):
            kinds = {PointKind(kind) for kind in rule(Target(square), rng(0))[1]}
    if missing := sorted(set(EXTREME_KINDS) - kinds):
        names = ", ".join(kind.name.lower() for kind in missing)
        raise ValueError(
            f"evaluation.empty is quadrilateral, of the four extreme points, but run {node.model.hash} begins without "
            f"some of them ({names}); set it to box"
        )
