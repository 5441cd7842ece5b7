"""FAIRS' corrective clicks: in training near the object's boundary, at test time in the largest error (Sec. 4.3, 4.5).

Drawn by the soft focus as printed, a positive click, on what was missed, digs a hole into the map, and a negative one
raises a bump (see `soft_focus.SoftFocus`, polarity).

Masks and areas are (H, W), points (x, y) in their pixels; distances are Euclidean between pixels and exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.clicks.distance import Mask, squared_distance
from datamodules.clicks.errors import Clusters, Pixels, binary, error_map, pixels_of
from datamodules.clicks.points import Clicked, PointKind, SimulatedPoints, Target, and_one
from datamodules.words import in_words


def largest_blob(mask: NDArray, prediction: NDArray, void: NDArray | None = None) -> Pixels:
    """The largest error, all pixels (n, 2) as (x, y) in raster order: any of them is FAIRS' corrective click.

    Missed and invented pixels are looked at apart, in 8-connected components without void; of equally large ones, also
    of both kinds, the first in raster order counts. Empty without an error.
    """
    error, object_ = error_map(mask, prediction, void), binary(mask)
    blobs = []
    for kind in (error & object_, error & ~object_):
        clusters = Clusters(kind)
        blobs.append(pixels_of(clusters.cluster(clusters.largest())))
    missed, invented = blobs
    if len(missed) == len(invented) > 0:
        return min(missed, invented, key=lambda blob: (blob[0, 1], blob[0, 0]))
    return max(missed, invented, key=len)


def near_boundary(mask: NDArray, near: float, far: float, void: NDArray | None = None) -> tuple[Mask, Mask]:
    """Where FAIRS' training clicks: inside of the object and outside of it, `near` to `far` pixels from the boundary.

    A pixel of the object is as far from the boundary as from the nearest pixel that is none, and the other way round;
    what lies beyond the crop is neither. Without void. Both areas are empty where there is no boundary, and the inside
    of an object too thin for `near` pixels is.
    """
    object_ = binary(mask)
    areas = []
    for side in (object_, ~object_):
        area = np.zeros(object_.shape, np.bool_)
        if side.any() and not side.all():
            squared = squared_distance(side)
            area = side & (squared >= near**2) & (squared <= far**2)
        areas.append(area if void is None else area & ~binary(void))
    return areas[0], areas[1]


class RefinedPoints(SimulatedPoints):
    """The points of another rule, then corrective clicks as FAIRS trains with them, before anything is predicted.

    "Randomly sampling points within a distance of 15-60 pixels from the boundary of the mask" (Sec. 4.5), up to two of
    them (Sec. 4.3). How many, and each one's kind, are our reading: uniform. One inside is positive, as if the
    object was missed there, one outside negative; where no pixel is far enough from the boundary, that click is left
    out, and two may fall on one pixel.

    Args:
        points: what is clicked first, which is not changed by what follows.
        most: 0 to so many clicks.
        near, far: from the boundary, in pixels of the crop; 15 and 60 at 512.
    """

    def __init__(self, points: SimulatedPoints, most: int = 2, near: float = 15.0, far: float = 60.0) -> None:
        if most < 0 or not 0 <= near <= far:
            raise ValueError(f"refined points need most >= 0 and 0 <= near <= far, got {most}, {near} and {far}")
        self.points = points
        self.most = most
        self.near = near
        self.far = far

    @staticmethod
    def in_words(arguments: Mapping[str, Any]) -> str:
        """The points that the clicks follow, then the clicks."""
        given = ", ".join(f"{name} {value}" for name, value in arguments.items() if name != "points")
        return f"{in_words(arguments['points'])}; RefinedPoints ({given})" if given else in_words(arguments["points"])

    def __call__(self, target: Target, draw: np.random.Generator) -> Clicked:
        xy, kinds = self.points(target, draw)
        positives = [bool(draw.integers(2)) for _ in range(draw.integers(self.most, endpoint=True))]
        if not positives:
            return xy, kinds
        inside, outside = (pixels_of(a) for a in near_boundary(target.mask, self.near, self.far, target.void))
        for positive in positives:
            area = inside if positive else outside
            if len(area):
                kind = PointKind.POSITIVE if positive else PointKind.NEGATIVE
                xy, kinds = and_one(xy, kinds, area[draw.integers(len(area), size=1)], kind)
        return xy.astype(np.float32), kinds.astype(np.int64)

    def box(self, native_id: str) -> NDArray[np.int64] | None:
        return self.points.box(native_id)
