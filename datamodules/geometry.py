"""Crops and the way back: boxes, the published chain step by step, and the one affine map that replaces it.

Boxes are inclusive xyxy in pixels (width = x_max - x_min + 1); sizes (H, W); a matrix is (2, 3) and maps pixel centres.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Beyond = Literal["zero", "wrap"]  # what stands beyond an image: nothing, or the image once more

INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,  # for making images smaller
}


def relax_box(box: NDArray, relax: int, clip_to: tuple[int, int] | None = None) -> NDArray[np.int64]:
    """The box grown by `relax` pixels on each side; clipped to an image of size `clip_to` only if asked."""
    grown = np.asarray(box, np.int64) + np.array([-relax, -relax, relax, relax])
    if clip_to is not None:
        height, width = clip_to
        grown = np.clip(grown, 0, [width - 1, height - 1, width - 1, height - 1])
    return grown


def crop(array: NDArray, box: NDArray, beyond: Beyond = "zero") -> NDArray:
    """The window of an (H, W[, C]) array; zeros, or what stands on the other side, where the box leaves it.

    A window that stays inside may be a view of the array.
    """
    x_min, y_min, x_max, y_max = (int(v) for v in box)
    if beyond == "wrap":
        return _around(_around(array, y_min, y_max, 0), x_min, x_max, 1)
    height, width = array.shape[:2]
    window = np.zeros((y_max - y_min + 1, x_max - x_min + 1, *array.shape[2:]), array.dtype)
    left, top, right, bottom = max(x_min, 0), max(y_min, 0), min(x_max, width - 1), min(y_max, height - 1)
    if left <= right and top <= bottom:
        window[top - y_min : bottom - y_min + 1, left - x_min : right - x_min + 1] = array[
            top : bottom + 1, left : right + 1
        ]
    return window


def _around(array: NDArray, first: int, last: int, axis: int) -> NDArray:
    """The places from `first` to `last` along an axis of an array that repeats; a view where they do not leave it."""
    length = array.shape[axis]
    turns = range(first // length, last // length + 1)
    parts = [slice(max(first - turn * length, 0), min(last + 1 - turn * length, length)) for turn in turns]
    windows = [array[(slice(None),) * axis + (part,)] for part in parts]
    return windows[0] if len(windows) == 1 else np.concatenate(windows, axis)


def resize(array: NDArray, size: tuple[int, int], interpolation: str) -> NDArray:
    """The array at size (H, W), aspect ratio not kept. Float values are not clipped: cubic leaves [0, 255] a little."""
    return cv2.resize(array, size[::-1], interpolation=INTERPOLATIONS[interpolation])


def warp(
    array: NDArray, matrix: NDArray, size: tuple[int, int], interpolation: str, beyond: Beyond = "zero"
) -> NDArray:
    """The array seen through `matrix` (source to target pixels) on a grid of size (H, W); outside as in `crop`."""
    border = cv2.BORDER_WRAP if beyond == "wrap" else cv2.BORDER_CONSTANT
    return cv2.warpAffine(array, matrix, size[::-1], flags=INTERPOLATIONS[interpolation], borderMode=border)


def warp_box(
    box: NDArray, image_size: tuple[int, int], matrix: NDArray, size: tuple[int, int], beyond: Beyond = "zero"
) -> NDArray[np.uint8]:
    """A filled box of an image (H, W) as `warp` shows its mask by nearest neighbours: the same pixels, sooner.

    The matrix does not rotate (`is_upright`), so that a pixel of the grid of size (H, W) lies in the box where its
    column and its row do: one of each is warped, with the numbers that OpenCV has for all.
    """
    x_min, y_min, x_max, y_max = (int(v) for v in box)
    along, down = np.zeros((1, image_size[1]), np.uint8), np.zeros((image_size[0], 1), np.uint8)
    along[:, x_min : x_max + 1] = down[y_min : y_max + 1] = 1
    back = cv2.invertAffineTransform(matrix)
    border = cv2.BORDER_WRAP if beyond == "wrap" else cv2.BORDER_CONSTANT
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    to_columns = np.array([[back[0, 0], 0, back[0, 2]], [0, 1, 0]])
    to_rows = np.array([[1, 0, 0], [0, back[1, 1], back[1, 2]]])
    columns = cv2.warpAffine(along, to_columns, (size[1], 1), flags=flags, borderMode=border)
    rows = cv2.warpAffine(down, to_rows, (1, size[0]), flags=flags, borderMode=border)
    return np.bitwise_and(rows, columns, dtype=np.uint8)


def is_upright(matrix: NDArray) -> bool:
    """Whether a matrix scales, flips and moves, but neither rotates nor shears."""
    return not matrix[0, 1] and not matrix[1, 0]


def scale_and_rotate(size: tuple[int, int], angle: float, scale: float) -> NDArray[np.float64]:
    """Rotation by `angle` degrees and scaling about (W / 2, H / 2), as DEXTR's code has it (not (W - 1) / 2)."""
    return np.asarray(cv2.getRotationMatrix2D((size[1] / 2, size[0] / 2), angle, scale), np.float64)


def flip_matrix(width: int) -> NDArray[np.float64]:
    """Horizontal flip of an image of this width."""
    return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])


def box_to_grid(box: NDArray, size: tuple[int, int]) -> NDArray[np.float64]:
    """From image pixels to the pixels of the crop of `box` resized to `size`: corner pixels keep their outer edges."""
    x_min, y_min, x_max, y_max = (float(v) for v in box)
    x_scale, y_scale = size[1] / (x_max - x_min + 1), size[0] / (y_max - y_min + 1)
    return np.array(
        [
            [x_scale, 0.0, (0.5 - x_min) * x_scale - 0.5],
            [0.0, y_scale, (0.5 - y_min) * y_scale - 0.5],
        ]
    )


def after(second: NDArray, first: NDArray) -> NDArray[np.float64]:
    """The matrix that applies `first`, then `second`."""
    linear = second[:, :2] @ first[:, :2]
    return np.concatenate([linear, second[:, :2] @ first[:, 2:] + second[:, 2:]], axis=1)


def apply(matrix: NDArray, points: NDArray) -> NDArray[np.float64]:
    """Points (N, 2) through a matrix."""
    return np.asarray(points) @ matrix[:, :2].T + matrix[:, 2]


def window_in_image(crop_box: NDArray, box: NDArray | None, size: tuple[int, int]) -> tuple[slice, slice] | None:
    """The part of an image (rows, columns) that a pasted crop can change: the crop, inside `box` where one is given."""
    x_min, y_min, x_max, y_max = (int(v) for v in crop_box)
    if box is not None:
        x_min, y_min = max(x_min, int(box[0])), max(y_min, int(box[1]))
        x_max, y_max = min(x_max, int(box[2])), min(y_max, int(box[3]))
    x_min, y_min, x_max, y_max = max(x_min, 0), max(y_min, 0), min(x_max, size[1] - 1), min(y_max, size[0] - 1)
    if x_min > x_max or y_min > y_max:
        return None
    return slice(y_min, y_max + 1), slice(x_min, x_max + 1)


def paste(
    probability: NDArray[np.float32],
    crop_box: NDArray,
    size: tuple[int, int],
    box: NDArray | None = None,
    interpolation: str = "cubic",
) -> NDArray[np.float32]:
    """A crop's prediction back in the image of size (H, W), zeros elsewhere and, where given, outside the tight `box`.

    As published: the map is resized to the crop box's extent (cubic: values may leave [0, 1] a little), before any
    threshold.
    """
    full = np.zeros(size, np.float32)
    window = window_in_image(crop_box, box, size)
    if window is not None:
        full[window] = window_of(probability, crop_box, window, interpolation)
    return full


def window_of(
    probability: NDArray[np.float32], crop_box: NDArray, window: tuple[slice, slice], interpolation: str = "cubic"
) -> NDArray[np.float32]:
    """The pasted prediction inside `window` (rows, columns of the image) only."""
    x_min, y_min, x_max, y_max = (int(v) for v in crop_box)
    resized = resize(probability, (y_max - y_min + 1, x_max - x_min + 1), interpolation)
    rows, columns = window
    return resized[rows.start - y_min : rows.stop - y_min, columns.start - x_min : columns.stop - x_min]
