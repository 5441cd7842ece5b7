"""What a curve of IoU over clicks is worth: pure functions on (N, T) arrays, column t - 1 for the IoU after t clicks.

Comparisons happen in float32, the threshold rounded as the curve is: an IoU stored as 0.85 has reached 0.85. A curve
that an evaluator cut off early may be padded with NaN, which reaches nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def noc(curves: ArrayLike, target: float, most: int = 20) -> NDArray[np.int64]:
    """(N,) number of clicks until the IoU first reaches `target`; `most` for an object that never does.

    So `most` clicks stand for success at the last click and for failure alike, as in every published NoC: see
    `failures`. A single curve (T,) gives a single number.
    """
    hit = _reached(curves, target, most)
    return np.where(hit.any(-1), hit.argmax(-1) + 1, most)


def failures(curves: ArrayLike, target: float, most: int = 20) -> NDArray[np.bool_]:
    """(N,) True for an object whose IoU is below `target` after each of `most` clicks."""
    return np.asarray(~_reached(curves, target, most).any(-1))


def sweep(curves: ArrayLike, target: float, most: int = 20) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Clicks used and IoU achieved, (N,) each, when every object stops at its first IoU >= `target`, else at the last.

    The points of ITIS' Figure 6 are the means of both, one point per target. Needs curves without NaN.
    """
    used = noc(curves, target, most)
    every = np.asarray(curves, np.float32)
    last = np.minimum(used, every.shape[-1])
    return used, np.take_along_axis(every, last[..., None] - 1, -1)[..., 0]


def clicks_for_mean(
    curve: ArrayLike, target: float, first: int = 1, start: float | None = None
) -> tuple[int | None, float | None]:
    """Clicks with which the mean IoU of a data set reaches `target`: a whole number, and between whole numbers.

    The second is t - 1 + (target - m(t - 1)) / (m(t) - m(t - 1)) for the first t with m(t) >= target. Papers publish
    fractions (ITIS, Table 1 right: 3.4, 5.7) and no formula; ours is linear interpolation.

    Args:
        curve: (T,) mean IoU m(1), ..., m(T).
        first: clicks that a method needs for its first mask (4 for extreme points). Below it there is no mask to
            interpolate from, so that t = `first` gives t itself.
        start: m(0), where objects start from a mask; with it no click may be needed, and t = 1 interpolates, too.

    Returns: both None when the curve never reaches the target.
    """
    means = np.asarray(curve, np.float64)
    if start is not None and np.float32(start) >= np.float32(target):
        return 0, 0.0
    hit = _reached(means, target, len(means))
    if not hit.any():
        return None, None
    t = int(hit.argmax()) + 1
    if t <= first and (start is None or t > 1):
        return t, float(t)
    before = float(means[t - 2]) if t > 1 else float(start or 0.0)
    return t, t - 1 + min(1.0, (target - before) / (float(means[t - 1]) - before))


def _reached(curves: ArrayLike, target: float, most: int) -> NDArray[np.bool_]:
    every = np.asarray(curves, np.float32)
    if every.ndim == 0 or min(every.shape[-1], most) < 1:
        raise ValueError(f"a curve holds the IoU after 1, 2, ... clicks; got shape {every.shape} and {most} clicks")
    return every[..., :most] >= np.float32(target)
