"""The masks of all objects of an image at once, each in its own window: full-size ones of 20 objects take 20 images."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.index import MaskKind, ObjectIndex
from datamodules.instances import MaskWindow
from datamodules.masks import rle_of_polygons

NOTHING = MaskWindow(np.zeros((0, 0), np.uint8), 0, 0)


def mask_windows(index: ObjectIndex, objects: Sequence[int]) -> list[MaskWindow]:
    """The masks of objects of one image, the same pixels as `read_mask` has; void belongs to no object.

    Raises ValueError or FileNotFoundError naming the object, or its file, when a mask is unreadable or of another size.
    """
    if not len(objects):
        return []
    size = index.size_of(objects[0])
    kinds = np.asarray(index.mask_kind)[objects].tolist()
    ranges = np.asarray(index.mask_range)[objects].tolist()
    rle = np.asarray(index.rle)
    found: dict[int, MaskWindow] = {}
    encoded: dict[int, bytes] = {}
    for i, kind, (start, end) in zip(objects, kinds, ranges):
        if kind == MaskKind.RLE:
            encoded[i] = rle[start:end].tobytes()
        elif kind == MaskKind.POLYGONS:
            drawn = rle_of_polygons(index.polygons(i), size)
            if drawn is None:
                found[i] = NOTHING
            else:
                encoded[i] = drawn["counts"]
        else:
            found[i] = _window_of(index.read_mask(i).mask)
    runs = []
    for i, ends in zip(encoded, runs_of(list(encoded.values()))):
        if ends is None or ends[-1] != size[0] * size[1]:
            raise ValueError(
                f"mask of object {index.native_id[i]} of {index.dataset}: its run lengths do not fill {size} (H, W)"
            )
        runs.append(ends)
    found |= zip(encoded, windows_of_runs(runs, size[0]))
    return [found[i] for i in objects]


def _window_of(mask: NDArray[np.uint8]) -> MaskWindow:
    x, y, width, height = cv2.boundingRect(mask)
    return MaskWindow(mask[y : y + height, x : x + width], x, y)


def windows_of_runs(runs: Sequence[NDArray[np.int64]], height: int) -> list[MaskWindow]:
    """Masks whose pixels, down the columns of an image of this height, are 0 and 1 in turns, each up to its end.

    All are drawn at once, the runs of one column after those of the other.
    """
    if not runs:
        return []
    owner = np.repeat(np.arange(len(runs)), [len(each) // 2 for each in runs])
    starts = np.concatenate([each[:-1:2] for each in runs])
    ends = np.concatenate([each[1::2] for each in runs])
    if not (inside := ends > starts).all():
        owner, starts, ends = owner[inside], starts[inside], ends[inside]
    if not len(starts):
        return [NOTHING] * len(runs)
    (left, top), (right, bottom) = (np.divmod(place, height) for place in (starts, ends - 1))
    if (left != right).any():  # a run that goes on in the next column ends with this one and begins anew
        columns = right - left + 1
        again = np.repeat(np.arange(len(starts)), columns)
        column = np.arange(len(again)) - np.repeat(np.cumsum(columns) - columns, columns) + left[again]
        top = np.where(column == left[again], top[again], 0)
        bottom = np.where(column == right[again], bottom[again], height - 1)
        owner, left = owner[again], column
    drawn, first = np.unique(owner, return_index=True)
    x, last = left[first], left[np.append(first[1:], len(left)) - 1]
    y, lowest = np.minimum.reduceat(top, first), np.maximum.reduceat(bottom, first)
    widths, heights = last - x + 1, lowest - y + 1
    base = np.cumsum(np.append(0, widths * heights))  # of each window in one buffer of all
    own = np.repeat(np.arange(len(drawn)), np.diff(np.append(first, len(owner))))
    begin = base[own] + (left - x[own]) * heights[own] - y[own]
    turns = np.stack([begin + top, begin + bottom + 1], axis=1).ravel()
    lengths = np.diff(turns, prepend=0, append=base[-1])
    pixels = np.repeat((np.arange(len(lengths)) & 1).astype(np.uint8), lengths)
    found = [NOTHING] * len(runs)
    for k, place in enumerate(drawn.tolist()):
        window = pixels[base[k] : base[k + 1]].reshape(widths[k], heights[k])
        found[place] = MaskWindow(window.T, int(x[k]), int(y[k]))
    return found


def runs_of(encoded: Sequence[bytes]) -> list[NDArray[np.int64] | None]:
    """Where each run of COCO's compressed run lengths ends, of many masks in one pass; None for what is none.

    `masks` says how they are written.
    """
    if not encoded:
        return []
    offsets = np.cumsum([0, *map(len, encoded)])
    digits = np.frombuffer(b"".join(encoded), np.uint8) - np.uint8(48)  # what is below wraps to above 63
    last = (digits & 32) == 0
    whole = np.array([len(each) > 0 for each in encoded])
    whole[whole] &= last[offsets[1:][whole] - 1]
    if not whole.all() or digits.max() > 63:
        return [_runs_alone(each) for each in encoded]
    ends = np.flatnonzero(last) + 1
    lengths = np.diff(ends, prepend=0)
    starts = ends - lengths
    shift = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    values = np.add.reduceat((digits & 31).astype(np.int64) << shift, starts)
    values -= np.where(digits[ends - 1] & 16, 1 << (5 * lengths), 0)
    first = np.searchsorted(ends, offsets, side="right")
    found: list[NDArray[np.int64] | None] = []
    for begin, end in zip(first[:-1].tolist(), first[1:].tolist()):
        runs = values[begin:end]  # from the fourth number on the difference to the last but one
        np.cumsum(runs[1::2], out=runs[1::2])
        np.cumsum(runs[2::2], out=runs[2::2])
        found.append(np.cumsum(runs) if runs.min() >= 0 else None)
    return found


def _runs_alone(encoded: bytes) -> NDArray[np.int64] | None:
    """The same of one mask where another is damaged."""
    digits = np.frombuffer(encoded, np.uint8)
    if not len(digits) or digits.min() < 48 or digits.max() > 111 or (int(digits[-1]) - 48) & 32:
        return None
    return runs_of([encoded])[0]
