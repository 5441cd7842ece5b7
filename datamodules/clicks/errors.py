"""Where a prediction is wrong: the error map of one object, its clusters (ITIS) and how deep they are (RITM).

Masks are (H, W), clicks (K, 2) as (x, y). Distances are Euclidean between pixels and exact.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from datamodules.clicks.distance import Mask, as_bytes, squared_distance

Pixels = NDArray[np.int64]  # (n, 2) as (x, y), in raster order


def error_map(mask: NDArray, prediction: NDArray, void: NDArray | None) -> Mask:
    """(H, W), True where the prediction is wrong; raises ValueError for different sizes."""
    sizes = [np.shape(array) for array in (mask, prediction, void) if array is not None]
    if len(sizes[0]) != 2 or any(size != sizes[0] for size in sizes):
        raise ValueError(
            "a corrective click needs mask, prediction and void of one size (H, W), "
            f"got {' and '.join(str(tuple(size)) for size in sizes)}; resize the prediction to its mask first"
        )
    error = binary(mask) != binary(prediction)
    if void is not None:
        error &= ~binary(void)
    return error


class Clusters:
    """The 8-connected components of an error map (H, W), and their `sizes` without the pixels of earlier clicks.

    Everything happens inside the error's bounding box, which begins at `origin` (x, y).
    """

    def __init__(self, error: Mask, clicks: ArrayLike | None = None) -> None:
        self.size = error.shape
        x, y, width, height = cv2.boundingRect(as_bytes(error))
        self.origin = (x, y)
        part = as_bytes(error)[y : y + height, x : x + width]
        self.labels: NDArray = np.zeros((0, 0), np.int32)
        self.stats: NDArray = np.zeros((0, 5), np.int32)
        if width:
            _, self.labels, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=8, ltype=cv2.CV_32S)
            self.stats = stats[1:]
        self.sizes = self.stats[:, cv2.CC_STAT_AREA].astype(np.int64)
        clicked_x, clicked_y = clicked_pixels(clicks, error.shape)
        clicked_x, clicked_y = clicked_x - x, clicked_y - y
        near = (clicked_x >= 0) & (clicked_y >= 0) & (clicked_x < width) & (clicked_y < height)
        self.clicked = clicked_x[near], clicked_y[near]
        hit = self.labels[self.clicked[::-1]]
        np.subtract.at(self.sizes, hit[hit > 0] - 1, 1)

    def largest(self) -> int:
        """The cluster of most pixels, among equals the one whose first pixel is first in raster order; -1: none."""
        tied = np.flatnonzero(self.sizes == self.sizes.max(initial=-1))
        if len(tied) < 2:
            return int(tied[0]) if len(tied) else -1
        return min((int(k) for k in tied), key=self._first_pixel)  # OpenCV numbers by blocks of pixels, not by raster

    def cluster(self, k: int) -> Mask:
        """(H, W), True at all pixels of the cluster, earlier clicks included."""
        cluster = np.zeros(self.size, np.bool_)
        y, x = self.origin[1], self.origin[0]
        cluster[y : y + self.labels.shape[0], x : x + self.labels.shape[1]] = self.labels == k + 1
        return cluster

    def centre(self, k: int) -> Pixels:
        """The pixels of the cluster farthest from all others, the image's outermost pixels and earlier clicks."""
        if k < 0:
            return np.zeros((0, 2), np.int64)
        left, top, width, height = (int(value) for value in self.stats[k, : cv2.CC_STAT_AREA])
        cluster = np.zeros((height + 2, width + 2), np.bool_)
        rows, columns = slice(top, top + height), slice(left, left + width)
        np.equal(self.labels[rows, columns], k + 1, out=cluster[1:-1, 1:-1])
        x, y = self.clicked[0] - left, self.clicked[1] - top
        near = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        cluster[y[near] + 1, x[near] + 1] = False
        left, top = self.origin[0] + left - 1, self.origin[1] + top - 1
        for at, axis, last in ((-top, 0, self.size[0] - 1), (-left, 1, self.size[1] - 1)):
            for outermost in (at, at + last):
                if 0 <= outermost < cluster.shape[axis]:
                    cluster[(slice(None),) * axis + (outermost,)] = False
        squared = squared_distance(cluster)
        maximum = squared.max()
        return pixels_of(squared == maximum, (left, top)) if maximum else np.zeros((0, 2), np.int64)

    def _first_pixel(self, k: int) -> tuple[int, int]:
        top = int(self.stats[k, cv2.CC_STAT_TOP])
        return top, int((self.labels[top] == k + 1).argmax())


class Depth:
    """Squared distances of an error's pixels to all others, in its bounding box grown by one; 0 at earlier clicks."""

    def __init__(self, error: Mask, clicks: ArrayLike | None = None) -> None:
        x, y, width, height = cv2.boundingRect(as_bytes(error))
        part = np.zeros((height + 2, width + 2), np.bool_)
        part[1:-1, 1:-1] = error[y : y + height, x : x + width]
        self.origin = (x - 1, y - 1)
        self.squared = squared_distance(part) if width else part.astype(np.float32)
        clicked_x, clicked_y = clicked_pixels(clicks, error.shape)
        clicked_x, clicked_y = clicked_x - self.origin[0], clicked_y - self.origin[1]
        near = (clicked_x >= 0) & (clicked_y >= 0) & (clicked_x < width + 2) & (clicked_y < height + 2)
        self.squared[clicked_y[near], clicked_x[near]] = 0
        self.maximum = float(self.squared.max())

    def where(self, chosen: Mask) -> Pixels:
        """The chosen ones of `squared`, as pixels of the image."""
        return pixels_of(chosen, self.origin)


def binary(array: NDArray) -> Mask:
    """A mask of any type, True where it is not 0."""
    array = np.asarray(array)
    return array if array.dtype == np.bool_ else array != 0


def clicked_pixels(clicks: ArrayLike | None, size: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """x and y of the earlier clicks that lie in the image, each pixel once."""
    xy = np.rint(np.reshape([] if clicks is None else clicks, (-1, 2)))
    x, y = xy[((xy >= 0) & (xy < size[::-1])).all(axis=1)].astype(np.int64).T
    y, x = np.divmod(np.unique(y * size[1] + x), size[1])
    return x, y


def row_ends(mask: NDArray) -> Pixels:
    """The first and the last pixel of each row of a mask (H, W) that has any, (2 * rows, 2) as (x, y), by rows.

    To `vertices.vertex_extremes` they are all pixels by rows: what lies between them is in reach of a side when they
    are, and never outermost alone. A large mask has 200,000 pixels, and fewer than 1,000 ends.
    """
    x, y, width, height = cv2.boundingRect(as_bytes(binary(mask)))
    window = binary(mask)[y : y + height, x : x + width]
    rows = np.flatnonzero(window.any(axis=1))
    window = window[rows]
    if not len(rows):
        return np.zeros((0, 2), np.int64)
    ends = np.stack([window.argmax(axis=1), width - 1 - window[:, ::-1].argmax(axis=1)], axis=1) + x
    return np.stack([ends.ravel(), np.repeat(rows + y, 2)], axis=1)


def pixels_of(chosen: Mask, origin: tuple[int, int] = (0, 0)) -> Pixels:
    """The True pixels of an array whose first pixel is `origin` (x, y)."""
    y, x = np.divmod(np.flatnonzero(chosen), chosen.shape[1])
    return np.stack([x + origin[0], y + origin[1]], axis=1)
