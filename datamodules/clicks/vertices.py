"""Extreme points as ExtremeNet takes them from an annotation: on its vertices, midway along flat sides.

Zhou et al., CVPR 2019; EXITS derives its four points and the box they span by this rule. Points come as (4, 2) float32,
rows left, top, right, bottom, each (x, y) in whole pixels of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules import geometry
from datamodules.clicks.errors import row_ends
from datamodules.clicks.points import EXTREME_KINDS, Clicked, SimulatedPoints, Target
from datamodules.ranges import Range

SIDES = ((0, False), (1, False), (0, True), (1, True))  # left, top, right, bottom: axis, and whether its far end


def vertex_extremes(outline: NDArray, tolerance: float = 0.02) -> NDArray[np.float32]:
    """The extreme points of an outline (n, 2) as (x, y), in the order of its file, as the published code has them.

    From the first outermost vertex of a side a walk goes along the list, one way and then the other, as long as
    vertices stay within `tolerance` times the object's height or width of that side; it passes the list's end by one
    vertex. The point lies on the side, midway between the outermost vertices of both walks, rounded down.

    The edge between two vertices does not count: a rectangle given from its upper left corner has a corner as its
    lowest point. On a list of pixels by rows a walk down a side ends at once. The midpoint of a notched side may fall
    off the object, and polygons reach one pixel beyond the mask that they fill.

    Raises ValueError for an outline without a vertex or of another shape.
    """
    vertices = np.asarray(outline)
    if vertices.ndim != 2 or vertices.shape[1] != 2 or not len(vertices):
        raise ValueError(
            f"extreme points need an outline of at least one vertex, (n, 2) as (x, y), got {vertices.shape}; "
            "filter empty objects in the reader"
        )
    padded = np.concatenate([vertices[-1:], vertices, vertices[:1]])
    around = np.ascontiguousarray(padded.T, np.result_type(padded, np.int64))  # with a sign: places are subtracted
    outermost = [[int(places.argmin()), int(places.argmax())] for places in around]  # the first one of either side
    points = np.zeros((4, 2))
    for point, (axis, far) in zip(points, SIDES):
        places, along = around[axis], around[1 - axis]
        low, high = places[outermost[axis]]
        first, reach = outermost[axis][far], tolerance * (high - low + 1)
        walked = along[first + 1 - _steps(places[first::-1], reach) : first + _steps(places[first:], reach)]
        point[axis], point[1 - axis] = places[first], np.floor((walked.max() + walked.min()) / 2)
    return np.trunc(points).astype(np.float32)


def _steps(places: NDArray, reach: float) -> int:
    """How many vertices a walk meets, the first included, before one is farther from that than `reach`.

    It looks ahead in growing blocks: outlines may have thousands of vertices, and most walks along them end at once.
    """
    seen, block = 0, 64
    while seen < len(places):
        near = np.abs(places[seen : seen + block] - places[0]) <= reach
        if not near.all():
            return seen + int(near.argmin())
        seen, block = seen + block, 8 * block
    return len(places)


def onto_crop(points: NDArray, to_crop: NDArray[np.float64]) -> NDArray[np.float32]:
    """Extreme points (4, 2) of the image in pixels of the crop, again as left, top, right, bottom.

    In a crop that shows the image flipped the left-most point of the image is the right-most one.
    """
    rows = [0, 1, 2, 3]
    for first, second, along in ((0, 2, to_crop[0, 0]), (1, 3, to_crop[1, 1])):
        if along < 0:
            rows[first], rows[second] = rows[second], rows[first]
    return geometry.apply(to_crop, points[rows]).astype(np.float32)


class VertexPoints(SimulatedPoints):
    """The extreme points of an object's annotation, see `vertex_extremes`; without chance.

    Where an object's outline is not known, the pixels of its mask by rows stand for it, as ExtremeNet has it for run
    lengths.

    Args:
        tolerance: share of the object's height or width by which a vertex may stay behind a side and count as on it.
    """

    def __init__(self, tolerance: float = 0.02) -> None:
        self.tolerance = Range(0, 1).checked(tolerance, "VertexPoints: tolerance")

    @staticmethod
    def in_words(arguments: Mapping[str, Any]) -> str:
        """`on vertices, tolerance 0.02`."""
        return f"on vertices, tolerance {arguments.get('tolerance', 0.02):g}"

    def __call__(self, target: Target, draw: np.random.Generator) -> Clicked:
        kinds = np.array(EXTREME_KINDS, np.int64)
        if target.outline is None:  # a mask lies on the crop's grid already
            return vertex_extremes(row_ends(target.mask), self.tolerance), kinds
        points = vertex_extremes(target.outline(), self.tolerance)
        return points if target.to_crop is None else onto_crop(points, target.to_crop), kinds
