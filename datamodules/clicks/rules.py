"""The simulated user's next click: where the prediction is wrong (ITIS, RITM, IOG; DEXTR's fifth point).

Every rule is a pure function `rule(mask, prediction, void, clicks, draw)` of one object:

    mask, prediction    (H, W) of 0 and not 0, of any type
    void                (H, W), not 0 at pixels nobody labelled, which are never an error and never clicked; or None
    clicks              (K, 2) as (x, y): all earlier clicks of both signs, those outside of the image ignored; or None
    draw                a Generator to choose among equally good pixels, or None for the first in raster order

and gives a `Click`, or None where the rule makes none. Distances are Euclidean between pixels and exact: rules compare
squared integers, so that ties are ties. Masks of different sizes, and a rule of chance without a `draw`, raise
ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from datamodules.clicks.distance import CROSS, Mask, as_bytes, squared_distance
from datamodules.clicks.errors import Clusters, Depth, Pixels, binary, clicked_pixels, error_map, pixels_of
from datamodules.clicks.points import Click
from datamodules.clicks.refinement import largest_blob

ClickRule = Callable[..., Click | None]


def largest_cluster(
    mask: NDArray,
    prediction: NDArray,
    void: NDArray | None = None,
    clicks: ArrayLike | None = None,
    draw: np.random.Generator | None = None,
) -> Click | None:
    """ITIS' correction click: the centre of the largest error (Sec. 3.2), as in the authors' code.

    False positives and false negatives are one error, whose 8-connected clusters lose the pixels of earlier clicks
    only after they were found. In the largest (the first in raster order among equals) the click is farthest from the
    cluster's boundary, the outermost pixels of the image and earlier clicks. None without an error, or where the
    largest cluster has only outermost pixels of the image and earlier clicks: the code then adds no click either.
    """
    return _chosen(largest_cluster_candidates(mask, prediction, void, clicks), mask, draw)


def largest_cluster_candidates(
    mask: NDArray, prediction: NDArray, void: NDArray | None = None, clicks: ArrayLike | None = None
) -> Pixels:
    """All pixels (n, 2) as (x, y), in raster order, that `largest_cluster` may click; none where it makes no click."""
    clusters = Clusters(error_map(mask, prediction, void), clicks)
    return clusters.centre(clusters.largest())


def sampled_cluster(
    mask: NDArray,
    prediction: NDArray,
    void: NDArray | None = None,
    clicks: ArrayLike | None = None,
    draw: np.random.Generator | None = None,
) -> Click | None:
    """ITIS' "cluster" sampling at test time (Fig. 4): a cluster drawn in proportion to its size, clicked at its centre.

    From the paper, since the released code of this strategy cannot run. Clusters, sizes and centres are those of
    `largest_cluster`; None where the drawn one lies in the image's outermost pixels.
    """
    draw = _needed(draw, "sampled_cluster")
    clusters = Clusters(error_map(mask, prediction, void), clicks)
    total = int(clusters.sizes.sum())
    if total == 0:
        return None
    drawn = int(np.searchsorted(clusters.sizes.cumsum(), draw.integers(total), side="right"))
    return _chosen(clusters.centre(drawn), mask, draw)


def cluster_sizes(
    mask: NDArray, prediction: NDArray, void: NDArray | None = None, clicks: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Pixels of each 8-connected error cluster without earlier clicks, in any order: weights of `sampled_cluster`."""
    return Clusters(error_map(mask, prediction, void), clicks).sizes


def sampled_error(
    mask: NDArray,
    prediction: NDArray,
    void: NDArray | None = None,
    clicks: ArrayLike | None = None,
    draw: np.random.Generator | None = None,
) -> Click | None:
    """ITIS' "random" sampling at test time (Fig. 4): any error pixel, all equally likely.

    As in the authors' code, not an earlier click and not an outermost pixel of the image; None where no other is left.
    """
    draw = _needed(draw, "sampled_error")
    return _chosen(sampled_error_candidates(mask, prediction, void, clicks), mask, draw)


def sampled_error_candidates(
    mask: NDArray, prediction: NDArray, void: NDArray | None = None, clicks: ArrayLike | None = None
) -> Pixels:
    """All pixels (n, 2) as (x, y), in raster order, that `sampled_error` draws from."""
    error = error_map(mask, prediction, void)
    error[[0, -1]] = error[:, [0, -1]] = False
    x, y = clicked_pixels(clicks, error.shape)
    error[y, x] = False
    return pixels_of(error)


def largest_distance(
    mask: NDArray,
    prediction: NDArray,
    void: NDArray | None = None,
    clicks: ArrayLike | None = None,
    draw: np.random.Generator | None = None,
) -> Click:
    """The next click of RITM, SimpleClick and FocalClick: the centre of the largest disc inside an error.

    Missed and invented pixels are looked at apart; the click is positive only where the missed ones hold the strictly
    larger disc. Outside of the image nothing is an error. An earlier click is no boundary, only a pixel that is not
    clicked again. There is always a click: without any error left it is (0, 0), negative.
    """
    candidates, positive = largest_distance_candidates(mask, prediction, void, clicks)
    x, y = candidates[0 if draw is None else draw.integers(len(candidates))]
    return Click(int(x), int(y), positive)


def largest_distance_candidates(
    mask: NDArray, prediction: NDArray, void: NDArray | None = None, clicks: ArrayLike | None = None
) -> tuple[Pixels, bool]:
    """All pixels (n, 2) as (x, y), in raster order, that `largest_distance` may click, and whether it is positive."""
    error = error_map(mask, prediction, void)
    missed = Depth(error & binary(mask), clicks)
    invented = Depth(error & ~binary(mask), clicks)
    positive = missed.maximum > invented.maximum
    deepest = missed if positive else invented
    if deepest.maximum == 0:
        return np.zeros((1, 2), np.int64), False
    return deepest.where(deepest.squared == deepest.maximum), positive


def likely_error(
    mask: NDArray,
    prediction: NDArray,
    void: NDArray | None = None,
    clicks: ArrayLike | None = None,
    draw: np.random.Generator | None = None,
) -> Click | None:
    """The click that RITM trains with: any pixel deeper inside its error than half of the deepest one.

    Errors and sign as in `largest_distance`, but earlier clicks do not matter: the same pixel may be clicked again, as
    in the authors' code. That code approximates the distance (5x5 mask), we measure it. None without an error.
    """
    draw = _needed(draw, "likely_error")
    error = error_map(mask, prediction, void)
    missed, invented = Depth(error & binary(mask)), Depth(error & ~binary(mask))
    deepest = missed if missed.maximum > invented.maximum else invented
    if deepest.maximum == 0:
        return None
    return _chosen(deepest.where(4 * deepest.squared > deepest.maximum), mask, draw)


def boundary_error(
    mask: NDArray,
    prediction: NDArray,
    void: NDArray | None = None,
    clicks: ArrayLike | None = None,
    draw: np.random.Generator | None = None,
    jitter: float = 0.0,
) -> Click | None:
    """DEXTR's fifth point (Sec. 3.3 and 4.5, Table 8): on the object's boundary, where the error is largest.

    The paper says no more; this is our reading. The error is its largest 8-connected component (the first in raster
    order among equals). The boundary is the object's pixels with one of the 4 neighbours outside of the object or of
    the image. A boundary pixel is as deep in the error as the nearest right pixel on the error's side of the boundary
    is far: of the object where the error misses it, of the background where the error lies just outside. (Measured to
    both sides, no boundary pixel is deeper than about one.) A component that touches no boundary is clicked at the
    boundary pixel nearest to it. The point then moves by up to +-`jitter` in x and in y, and back to the nearest
    boundary pixel.

    A fifth point is neither positive nor negative: the click comes as positive, and its reader knows better. Earlier
    clicks do not matter. None without an error, or where an object without (labelled) pixels has no boundary.
    """
    if jitter > 0:
        draw = _needed(draw, "boundary_error with a jitter")
    object_ = binary(mask)
    clusters = Clusters(error_map(mask, prediction, void))
    boundary = object_ & ~cv2.erode(as_bytes(object_), CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0).view(
        np.bool_
    )
    if void is not None:
        boundary &= ~binary(void)
    if not len(clusters.sizes) or not boundary.any():
        return None
    on_boundary = pixels_of(boundary)
    component = clusters.cluster(clusters.largest())
    depth = _boundary_depth(object_, component)[boundary]
    if depth.any():
        candidates = on_boundary[depth == depth.max()]
    else:
        distance = squared_distance(~component)[boundary]
        candidates = on_boundary[distance == distance.min()]
    point = candidates[0 if draw is None else draw.integers(len(candidates))]
    if jitter > 0 and draw is not None:
        moved = point + draw.uniform(-jitter, jitter, 2)
        point = on_boundary[np.square(on_boundary - moved).sum(axis=1).argmin()]
    return Click(int(point[0]), int(point[1]), True)


def thickest_error(
    mask: NDArray,
    prediction: NDArray,
    void: NDArray | None = None,
    clicks: ArrayLike | None = None,
    draw: np.random.Generator | None = None,
) -> Click | None:
    """IOG's further click: the centre of the largest error (Sec. 3.3), which is its thickest one in the authors' code.

    Missed and invented pixels are one error, and the click is where the largest disc fits into it. The image's edge is
    no boundary: an error that touches it is clicked in its outermost pixels, unlike IOG's inside point. Earlier clicks
    do not matter. None without an error. Unlike the code, nothing is an error in void, and the click's sign is that of
    the clicked pixel; see `thickest_error_as_released`.
    """
    return _chosen(thickest_error_candidates(mask, prediction, void), mask, draw)


def thickest_error_candidates(mask: NDArray, prediction: NDArray, void: NDArray | None = None) -> Pixels:
    """All pixels (n, 2) as (x, y), in raster order, that `thickest_error` may click; none without an error.

    Where all pixels are wrong there is no other boundary than the image's edge.
    """
    error = error_map(mask, prediction, void)
    x, y, width, height = cv2.boundingRect(as_bytes(error))
    left, top = max(x - 1, 0), max(y - 1, 0)
    part = error[top : y + height + 1, left : x + width + 1]  # the nearest right pixel is never farther out
    if part.all():
        depth = Depth(error)
        return depth.where(depth.squared == depth.maximum)
    squared = squared_distance(part)
    return pixels_of((squared == squared.max()) & part, (left, top))


def thickest_error_as_released(
    mask: NDArray,
    prediction: NDArray,
    void: NDArray | None = None,
    clicks: ArrayLike | None = None,
    draw: np.random.Generator | None = None,
) -> Click:
    """`thickest_error` with what the authors' code does, which the published numbers were made with.

    Void counts as any other pixel. Without an error left the click is (0, 0). The sign is that of the transposed pixel:
    of row x and column y, a slip in the code; where an image that is not square (the code's crops are) has no such
    pixel, that of the clicked one.
    """
    error_map(mask, prediction, void)  # refuses void of another size, too
    candidates = thickest_error_candidates(mask, prediction)
    x, y = candidates[0 if draw is None else draw.integers(len(candidates))] if len(candidates) else (0, 0)
    exists = x < mask.shape[0] and y < mask.shape[1]
    return Click(int(x), int(y), bool(mask[x, y] if exists else mask[y, x]))


def sampled_blob(
    mask: NDArray,
    prediction: NDArray,
    void: NDArray | None = None,
    clicks: ArrayLike | None = None,
    draw: np.random.Generator | None = None,
) -> Click | None:
    """FAIRS' click (Sec. 4.5): any pixel of the largest error, see `largest_blob`. Earlier clicks do not matter."""
    return _chosen(largest_blob(mask, prediction, void), mask, _needed(draw, "sampled_blob"))


RULES: dict[str, ClickRule] = {
    "itis": largest_cluster,
    "ritm": largest_distance,
    "cluster": sampled_cluster,
    "random": sampled_error,
    "ritm_training": likely_error,
    "boundary": boundary_error,
    "iog": thickest_error,
    "iog_code": thickest_error_as_released,
    "fairs": sampled_blob,
}


def next_clicks(
    rule: ClickRule,
    masks: Sequence[NDArray],
    predictions: Sequence[NDArray],
    voids: Sequence[NDArray | None] | None,
    clicks: Sequence[ArrayLike | None] | None,
    draws: Sequence[np.random.Generator | None] | None,
    pool: Executor | None = None,
) -> list[Click | None]:
    """The next click of every object, in order; `voids`, `clicks` and `draws` may be None for "none of them".

    `pool` is a thread pool (OpenCV gives up the interpreter's lock while it measures), or None to work here. Every
    object has its own Generator, so that any number of threads gives the same clicks. Raises ValueError for lists of
    different lengths and for two objects that share a Generator.
    """
    count = len(masks)
    columns = [masks, predictions, *(column or [None] * count for column in (voids, clicks, draws))]
    if any(len(column) != count for column in columns):
        raise ValueError(
            "next_clicks needs one mask, prediction, void, list of clicks and draw per object, "
            f"got {', '.join(str(len(column)) for column in columns)}"
        )
    owned = [id(draw) for draw in columns[-1] if draw is not None]
    if len(set(owned)) < len(owned):
        raise ValueError(
            "next_clicks needs a Generator per object, got one for several; derive each from its object's key"
        )
    return list((map if pool is None else pool.map)(rule, *columns))


def _boundary_depth(object_: Mask, component: Mask) -> NDArray[np.float32]:
    """(H, W): squared depth of the object's pixels in an error component, see `boundary_error`; 0 where untouched."""
    depths = []
    for side in (object_, ~object_):
        right = side & ~component
        squared = squared_distance(~right) if right.any() else np.full(right.shape, np.inf, np.float32)
        depths.append(np.where(side & component, squared, np.float32(0)))
    return np.maximum(depths[0], cv2.dilate(depths[1], CROSS))


def _needed(draw: np.random.Generator | None, rule: str) -> np.random.Generator:
    if draw is None:
        raise ValueError(f"{rule} clicks by chance and needs a `draw`, got None; give it the object's own Generator")
    return draw


def _chosen(candidates: Pixels, mask: NDArray, draw: np.random.Generator | None) -> Click | None:
    if not len(candidates):
        return None
    x, y = candidates[0 if draw is None else draw.integers(len(candidates))]
    return Click(int(x), int(y), bool(mask[y, x]))
