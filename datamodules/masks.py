"""Masks from the ways data sets store them: label maps in files, polygons, run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.io import loadmat

from datamodules.images import check_pixels, orientation, turned


class MaskKind(IntEnum):
    """Where an object's mask is: pixels of a label map equal to a value, or at least a value; polygons; run lengths.

    BOX: nobody drew a mask, the object's box stands for it, filled.
    """

    LABEL = 0
    FOREGROUND = 1
    POLYGONS = 2
    RLE = 3
    BOX = 4


def pieces(mask: NDArray[np.uint8], share: float = 0.05) -> int:
    """How many 8-connected parts of a mask (H, W) hold at least this share of its area; 0 for an empty one."""
    mask = mask.T if mask.flags.f_contiguous else mask  # turned it has as many, and OpenCV need not copy it
    x, y, width, height = cv2.boundingRect(mask)
    window = np.ascontiguousarray(mask[y : y + height, x : x + width])
    if not window.size:
        return 0
    stats = cv2.connectedComponentsWithStats(window, connectivity=8)[2]
    areas = stats[1:, cv2.CC_STAT_AREA]  # of 0, the background, none
    return int(np.count_nonzero(areas >= share * areas.sum()))


def read_label_map(path: str | Path) -> NDArray:
    """A mask file as (H, W) integers, as stored: palette *indices*, gray levels, SBD's GTinst.Segmentation from .mat.

    A 1-bit mask is 0 and 255, a colour mask counts as the largest of its channels, alpha is ignored. EXIF's orientation
    is applied. Pictures of one object are read as one sees them, by `mask_pictures`. The array is read-only and shared.
    Raises FileNotFoundError or ValueError naming the file when it is missing or unreadable.
    """
    path = Path(path)
    try:
        state = path.stat()
        return _read_label_map(str(path), (state.st_mtime_ns, state.st_size))
    except FileNotFoundError:
        raise FileNotFoundError(f"mask {path} is missing; the data set that lists it is incomplete") from None


@lru_cache(maxsize=2)  # the objects of one image follow each other: decode their map once
def _read_label_map(path: str, changed: tuple[int, int]) -> NDArray:
    labels = read_mat(path).Segmentation if path.endswith(".mat") else _read_picture(path)
    labels = np.ascontiguousarray(labels)
    labels.flags.writeable = False
    return labels


def read_mat(path: str | Path) -> Any:
    """The record GTinst of one of SBD's .mat files. Raises ValueError naming a file that is not one."""
    try:
        return loadmat(str(path), squeeze_me=True, struct_as_record=False, variable_names=["GTinst"])["GTinst"]
    except FileNotFoundError:
        raise
    except Exception as error:  # scipy raises a dozen kinds, from zlib's to TypeError
        raise ValueError(f"mask {path} is not an SBD instance file with a GTinst ({error}); fetch it again") from None


def _read_picture(path: str) -> NDArray:
    try:
        with Image.open(path) as image:  # OpenCV would turn palette indices into colours
            check_pixels(path, "mask", image.height, image.width)
            mode = image.mode
            labels = turned(np.asarray(image.convert("L") if mode == "1" else image), orientation(image))
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, EOFError, ...
        raise ValueError(f"mask {path} cannot be read ({error}); fetch it again") from None
    if labels.ndim == 3:
        labels = labels[..., 0] if mode in ("LA", "PA") else labels[..., :3].max(axis=2)
    return labels


def rle_of_polygons(rings: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> dict | None:
    """COCO's compressed run lengths of the union of polygons, each (2n,) as x, y, ...; None without an inside."""
    corners = [ring.tolist() for ring in rings if len(ring) >= 6]
    return coco_mask.merge(coco_mask.frPyObjects(corners, *size)) if corners else None


def mask_from_polygons(rings: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Union of polygons, each (2n,) as x, y, x, y, ... in pixels, filled as COCO does: (H, W) uint8 of 0 and 1."""
    rle = rle_of_polygons(rings, size)
    return np.zeros(size, np.uint8) if rle is None else _decoded(rle)


def mask_from_box(box: Sequence[int] | NDArray, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An inclusive xyxy box inside the image, filled: (H, W) uint8 of 0 and 1."""
    x_min, y_min, x_max, y_max = box
    mask = np.zeros(size, np.uint8)
    mask[y_min : y_max + 1, x_min : x_max + 1] = 1
    return mask


def mask_from_rle(counts: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """COCO's compressed run lengths as (H, W) uint8 of 0 and 1. Raises ValueError when they do not fill that size."""
    if (covered := _pixels(counts)) != size[0] * size[1]:  # pycocotools would leave the rest of the memory as it is
        raise ValueError(f"run lengths of {covered} pixels do not fill a mask of {size} (H, W)")
    return _decoded({"size": list(size), "counts": counts})


def _decoded(rle: dict) -> NDArray[np.uint8]:
    return cv2.transpose(coco_mask.decode(rle).T)  # by rows, as OpenCV wants it: else each of its calls makes a copy


def _pixels(counts: bytes) -> int:
    """How many pixels compressed run lengths cover; -1 where they are none.

    A number is written in characters from '0' on, five bits each, lowest first, bit 6 where more follow, and with a
    sign; from the fourth number on it is the difference to the last but one.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((digits & 32) == 0) + 1
    if not len(ends) or ends[-1] != len(digits) or digits.min() < 0 or digits.max() > 63:
        return -1
    lengths = np.diff(ends, prepend=0)
    starts = ends - lengths
    shift = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((digits & 31) << shift, starts)
    runs -= np.where(digits[ends - 1] & 16, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return int(runs.sum()) if runs.min() >= 0 else -1
