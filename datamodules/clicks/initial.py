"""The clicks a training starts from: iFCN's sampling, with the values of ITIS' authors' code (ITIS, Sec. 3.2).

Pixels are those of the crop, at 350 in the paper; points are (x, y), masks and areas (H, W). What ITIS' paper leaves to
its supplement and to iFCN is taken from the code; where iFCN's paper differs, the function says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.clicks.distance import CROSS, squared_distance
from datamodules.clicks.points import Clicked, PointKind, SimulatedPoints, Target
from datamodules.clicks.rules import largest_cluster

Area = NDArray[np.bool_]
XY = tuple[int, int]


class InitialClicks(SimulatedPoints):
    """Positive clicks on the object and negative ones by one of three strategies (iFCN; ITIS, Sec. 3.2).

    Args:
        positives: at most so many positive clicks, at least one.
        negatives_around: strategy 1: up to so many clicks in the background around the object.
        negatives_on_others: strategy 2: up to so many on each other object; the same number is tried on each.
        negatives_boundary: strategy 3: so many around the object's boundary, far from one another.
        ring: how far the background around the object reaches, and half the box between clicks of strategy 3.
        margin: pixels without clicks on both sides of the object's boundary; none at the image's edge.
        step: half the box around a click that gets no other click of the same area (iFCN's re-implementations: 10).
        centre_probability: how often there is one positive click at the object's centre instead, the first that the
            click benchmark would make. 0.3 in the authors' code, which its paper does not tell; 1: never another start.
        strategies: those that a sample's one is drawn from, uniformly.

    The object is the mask without void, or the whole mask where all of it is void. As in the code, an area of a single
    pixel gets no negative click; unlike there, every object gets a positive one.
    """

    def __init__(
        self,
        positives: int = 5,
        negatives_around: int = 10,
        negatives_on_others: int = 5,
        negatives_boundary: int = 10,
        ring: int = 40,
        margin: int = 5,
        step: int = 20,
        centre_probability: float = 0.0,
        strategies: Sequence[int] = (1, 2, 3),
    ) -> None:
        if not strategies or not set(strategies) <= {1, 2, 3}:
            raise ValueError(f"strategies for negative clicks are some of 1, 2 and 3, got {list(strategies)}")
        if not 0 <= centre_probability <= 1:
            raise ValueError(f"centre_probability must lie in [0, 1], got {centre_probability}")
        if min(positives, ring, step) < 1:
            raise ValueError(f"positives, ring and step must be at least 1, got {positives}, {ring} and {step}")
        if min(margin, negatives_around, negatives_on_others, negatives_boundary) < 0:
            raise ValueError(
                "margin and the numbers of negative clicks must be at least 0, got "
                f"{margin}, {negatives_around}, {negatives_on_others} and {negatives_boundary}"
            )
        self.positives = positives
        self.negatives_around = negatives_around
        self.negatives_on_others = negatives_on_others
        self.negatives_boundary = negatives_boundary
        self.ring = ring
        self.margin = margin
        self.step = step
        self.centre_probability = centre_probability
        self.strategies = tuple(strategies)

    def __call__(self, target: Target, draw: np.random.Generator) -> Clicked:
        """See SimulatedPoints; raises ValueError for an empty mask. The others are read only for strategy 2."""
        object_ = np.asarray(target.mask) != 0
        labelled = np.ones_like(object_) if target.void is None else np.asarray(target.void) == 0
        if (object_ & labelled).any():
            object_ = object_ & labelled
        elif not object_.any():
            raise ValueError(
                f"initial clicks need a non-empty mask, got an empty one of size {object_.shape}; filter empty objects"
            )
        if self.centre_probability > 0 and draw.random() < self.centre_probability:
            centre = largest_cluster(object_, np.zeros_like(object_), draw=draw)
            if centre is not None:  # the rule makes no click on an object in the image's outermost pixels
                return _clicked([(centre.x, centre.y)], [])
        return _clicked(self._positives(object_, draw), self._negatives(object_, labelled, draw, target.others))

    def _positives(self, object_: Area, draw: np.random.Generator) -> list[XY]:
        count = int(draw.integers(1, self.positives, endpoint=True))
        area = positive_area(object_, self.margin)
        return spaced_clicks(area, count, self.step, draw) or [_first(area)]

    def _negatives(
        self,
        object_: Area,
        labelled: Area,
        draw: np.random.Generator,
        others: Callable[[], NDArray[np.uint8]] | None,
    ) -> list[XY]:
        strategy = self.strategies[draw.integers(len(self.strategies))]
        if strategy == 2:
            count = int(draw.integers(self.negatives_on_others, endpoint=True))
            if others is None or count == 0:
                return []
            labels = np.where(labelled & ~object_, others(), 0)
            return [
                click
                for label in np.unique(labels[labels > 0])
                for click in spaced_clicks(labels == label, count, self.step, draw)
            ]
        ring = background_ring(object_, ~labelled, self.ring, self.margin)
        if strategy == 1:
            count = int(draw.integers(self.negatives_around, endpoint=True))
            return spaced_clicks(ring, count, self.step, draw)
        first = spaced_clicks(ring, min(1, self.negatives_boundary), self.step, draw)
        return boundary_negatives(ring, first[0], self.negatives_boundary, self.ring) if first else []


def positive_area(mask: NDArray, margin: int = 5) -> Area:
    """Where positive clicks are drawn: the object without `margin` pixels (as |dx| + |dy|) along its boundary.

    What lies beyond the image counts as object. The whole object where nothing would be left.
    """
    object_ = np.ascontiguousarray(np.asarray(mask) != 0)
    eroded = cv2.erode(object_.view(np.uint8), CROSS, iterations=margin).view(np.bool_)
    return eroded if eroded.any() else object_


def background_ring(mask: NDArray, void: NDArray | None = None, ring: int = 40, margin: int = 5) -> Area:
    """The background around an object, strategies 1 and 3: at most `ring` pixels from the object grown by `margin`.

    The margin is measured as |dx| + |dy|, the ring as Euclidean distance, from the grown object as in the authors' code
    (iFCN: from the object). Without void; all False for an empty mask.
    """
    object_ = np.ascontiguousarray(np.asarray(mask) != 0)
    area = np.zeros_like(object_)
    x, y, width, height = cv2.boundingRect(object_.view(np.uint8))
    if width == 0:
        return area
    reach = ring + margin
    window = slice(max(y - reach, 0), y + height + reach), slice(max(x - reach, 0), x + width + reach)
    grown = cv2.dilate(np.ascontiguousarray(object_[window]).view(np.uint8), CROSS, iterations=margin)
    squared = squared_distance(1 - grown)
    area[window] = (squared > 0) & (squared <= ring**2)
    if void is not None:
        area &= np.asarray(void) == 0
    return area


def spaced_clicks(area: NDArray, count: int, step: int, draw: np.random.Generator) -> list[XY]:
    """Up to `count` random pixels (x, y) of an area, none in the box around an earlier one (see `suppress`).

    Ends when fewer than two pixels are left to draw from, as the authors' code does.
    """
    eligible = (np.asarray(area) != 0).astype(np.uint8)
    clicks: list[XY] = []
    for _ in range(count):
        until = cv2.reduce(eligible, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).cumsum()  # eligible pixels up to each row
        if until[-1] < 2:
            break
        drawn = draw.integers(until[-1])
        y = int(np.searchsorted(until, drawn, side="right"))
        row = np.flatnonzero(eligible[y])
        clicks.append((int(row[drawn - until[y]]), y))  # counted from the row's end
        suppress(eligible, clicks[-1], step)
    return clicks


def suppress(area: NDArray, click: XY, step: int) -> None:
    """Set an area to 0 in place in columns [x - step, x + step) and rows [y - step, y + step) around a click (x, y)."""
    x, y = click
    area[max(y - step, 0) : max(y + step, 0), max(x - step, 0) : max(x + step, 0)] = 0


def boundary_negatives(ring: NDArray, first: XY, count: int = 10, reach: int = 40) -> list[XY]:
    """Strategy 3: up to `count` clicks (x, y) in the background ring, the `first` given, far from one another.

    Each next one is farthest from the first click and from all pixels outside of the ring, without those in the box of
    half side `reach` around a click of these. As in the authors' code the distance is measured once (iFCN: again after
    each click), the first click has no box, and the image's edge is no boundary, so that clicks often fall on it.
    """
    open_ring = (np.asarray(ring) != 0).astype(np.uint8)
    open_ring[first[1], first[0]] = 0
    left, top, width, height = cv2.boundingRect(open_ring)
    clicks = [first]
    if width == 0:
        return clicks
    left, top, right, bottom = max(left - 1, 0), max(top - 1, 0), left + width + 1, top + height + 1
    squared = squared_distance(open_ring[top:bottom, left:right])  # the nearest 0 is never farther out
    while len(clicks) < count:
        y, x = divmod(int(squared.argmax()), squared.shape[1])
        if squared[y, x] == 0:
            break
        clicks.append((left + x, top + y))
        suppress(squared, (x, y), reach)
    return clicks


def _first(area: Area) -> XY:
    y, x = divmod(int(area.argmax()), area.shape[1])
    return x, y


def _clicked(positives: list[XY], negatives: list[XY]) -> Clicked:
    kinds = [PointKind.POSITIVE] * len(positives) + [PointKind.NEGATIVE] * len(negatives)
    return np.array([*positives, *negatives], np.float32).reshape(-1, 2), np.array(kinds, np.int64)
