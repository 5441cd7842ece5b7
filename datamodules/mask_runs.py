"""The masks of all objects of an image at once: run lengths until they are wanted, then drawn at their final size.

Twenty full-size masks take longer than their image. Runs are few: they are moved, and each mask is drawn in its window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from datamodules.index import MaskKind, ObjectIndex
from datamodules.masks import rle_of_polygons


class MaskRuns(NamedTuple):
    """Where the pixels of masks are that share an image: runs down its columns, in order.

    Args:
        size: (H, W) of the image.
        counts: (n,) runs of each mask.
        starts, ends: (runs,) of the pixels, counted down the columns; `ends` exclusive.
    """

    size: tuple[int, int]
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


def read_runs(index: ObjectIndex, objects: Sequence[int]) -> MaskRuns:
    """The masks of one or more objects of an image, the same pixels as `read_mask` has; void belongs to no object.

    Raises ValueError or FileNotFoundError naming the object, or its file, when a mask is unreadable or of another size.
    """
    size = index.size_of(objects[0])
    kinds = np.asarray(index.mask_kind)[objects].tolist()
    ranges = np.asarray(index.mask_range)[objects].tolist()
    rle = np.asarray(index.rle)
    encoded = []
    for i, kind, (start, end) in zip(objects, kinds, ranges):
        if kind == MaskKind.RLE:
            encoded.append(rle[start:end].tobytes())
        elif kind == MaskKind.POLYGONS:
            drawn = rle_of_polygons(index.polygons(i), size)
            encoded.append((drawn or coco_mask.encode(np.zeros(size, np.uint8, order="F")))["counts"])
        else:
            encoded.append(coco_mask.encode(np.asfortranarray(index.read_mask(i).mask))["counts"])
    try:
        return runs_of(encoded, size)
    except DamagedRuns as error:
        i = objects[error.place]
        raise ValueError(
            f"mask of object {index.native_id[i]} of {index.dataset}: its run lengths do not fill {size} (H, W)"
        ) from None


class DamagedRuns(ValueError):
    """Run lengths that are none, or do not fill an image; `place` says whose."""

    def __init__(self, place: int) -> None:
        super().__init__(f"the run lengths of mask {place} do not fill its image")
        self.place = place


def runs_of(encoded: Sequence[bytes], size: tuple[int, int]) -> MaskRuns:
    """COCO's compressed run lengths of one or more masks of this size, as `masks` says they are written, in one pass.

    Raises DamagedRuns.
    """
    digits = np.frombuffer(b"".join(encoded), np.uint8) - np.uint8(48)  # what is below wraps to above 63
    bounds = np.cumsum([len(each) for each in encoded])
    if not all(encoded) or digits.max() > 63 or (digits[bounds - 1] > 31).any():
        raise DamagedRuns([_is_broken(each) for each in encoded].index(True))
    last = np.flatnonzero(digits < 32)  # of each number; it has the sign
    values = (digits[last] ^ 16).astype(np.int64) - 16
    size_of_number, place = np.diff(last, prepend=-1), np.arange(len(last))
    for k in range(1, int(size_of_number.max())):
        place = place[size_of_number[place] > k]
        values[place] = (values[place] << 5) + digits[last[place] - k] - 32
    behind = np.searchsorted(last, bounds)
    numbers = np.diff(behind, prepend=0)
    # Zeros, then in turns ones and zeros. Where a mask ends with its image, no zeros follow: they count as none.
    padded = np.where(numbers == 1, 2, 1 - numbers % 2)
    if padded.any():
        values = np.insert(values, np.repeat(behind, padded), 0)
    heads = np.cumsum(numbers + padded) - numbers - padded
    counts = (numbers + padded) // 2
    before = values[heads]
    pairs = _summed(np.delete(values, heads).reshape(-1, 2), counts)  # each is written less the pair before it
    ends = np.repeat(before, counts) + _summed(pairs.sum(axis=1), counts) - pairs[:, 1]
    final = np.cumsum(counts) - 1
    covered = ends[final] + np.where(padded == 1, 0, pairs[final, 1])
    pairs[final[padded == 1], 1] = 0
    broken = (covered != size[0] * size[1]) | (before < 0)
    broken |= np.minimum.reduceat(pairs.min(axis=1), final - counts + 1) < 0
    if broken.any():
        raise DamagedRuns(int(np.argmax(broken)))
    return MaskRuns(size, counts, ends - pairs[:, 0], ends)


def _is_broken(encoded: bytes) -> bool:
    """Whether these are no numbers."""
    return not encoded or min(encoded) < 48 or max(encoded) > 111 or encoded[-1] - 48 > 31


def _summed(values: NDArray, counts: NDArray) -> NDArray:
    """Sums along rows (n, ...), begun anew for each mask."""
    sums, first = np.cumsum(values, axis=0), np.cumsum(counts) - counts
    return sums - np.repeat(sums[first] - values[first], counts, axis=0)


def drawn_masks(
    runs: MaskRuns,
    rows: NDArray,
    columns: NDArray,
    grid: tuple[int, int],
    wanted: NDArray[np.bool_],
    flip: bool = False,
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Masks in the upper left corner of a grid (H, W), whose first rows and columns show these of the image.

    Args:
        rows, columns: ascending.
        wanted: (n,) which of the masks.
        flip: whether these columns are shown from right to left.
    Returns: which of the wanted have a pixel there, (n,), and these m masks as (m, H, W) uint8 of 0 and 1.
    """
    height, width = runs.size
    to_row, to_column = (np.searchsorted(shown, np.arange(n + 1)) for shown, n in ((rows, height), (columns, width)))
    owner = np.repeat(np.arange(len(runs.counts)), runs.counts)
    left, right = runs.starts // height, (runs.ends - 1) // height
    top, bottom = runs.starts - left * height, runs.ends - right * height
    if (left != right).any():  # a run that goes on in the next column ends with this one and begins anew
        columns_of = np.maximum(right - left + 1, 0)
        again = np.repeat(np.arange(len(left)), columns_of)
        column = np.arange(len(again)) - np.repeat(np.cumsum(columns_of) - columns_of, columns_of) + left[again]
        top = np.where(column == left[again], top[again], 0)
        bottom = np.where(column == right[again], bottom[again], height)
        owner, left = owner[again], column
    top, bottom = to_row[top], to_row[bottom]
    seen = (bottom > top) & (to_column[left + 1] > to_column[left]) & wanted[owner]
    if not seen.all():
        owner, left, top, bottom = (each[seen] for each in (owner, left, top, bottom))
    counts = np.bincount(owner, minlength=len(runs.counts))
    shown = counts > 0
    counts = counts[shown]
    masks = np.zeros((len(counts), *grid), np.uint8)
    if not len(counts):
        return shown, masks
    first = np.cumsum(counts) - counts
    x, beyond = left[first], left[first + counts - 1] + 1
    y, below = np.minimum.reduceat(top, first), np.maximum.reduceat(bottom, first)
    heights = below - y
    places = np.cumsum(np.append(0, (beyond - x) * heights))  # of each window in one buffer of all
    own = np.repeat(np.arange(len(counts)), counts)
    begin = places[own] + (left - x[own]) * heights[own] - y[own]
    turns = np.stack([begin + top, begin + bottom], axis=1).ravel()
    lengths = np.diff(turns, prepend=0, append=places[-1])
    pixels = np.repeat((np.arange(len(lengths)) & 1).astype(np.uint8), lengths)
    starts, ends = to_column[x].tolist(), to_column[beyond].tolist()
    for k, (mask, start, end, row) in enumerate(zip(masks, starts, ends, y.tolist())):
        window = pixels[places[k] : places[k + 1]].reshape(-1, heights[k])
        sought = columns[start:end] - x[k]
        if flip:
            sought, start, end = sought[::-1], len(columns) - end, len(columns) - start
        cv2.transpose(window.take(sought, axis=0), dst=mask[row : row + heights[k], start:end])  # written in place
    return shown, masks
