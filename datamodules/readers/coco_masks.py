"""What the masks of a COCO file are worth, all at once: where polygons lie and how large they are, what runs cover."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 15  # numbers that are looked at together: they stay in the processor's cache
DIGITS = 6  # of a run length, five bits each: more than any image has


class Extent(NamedTuple):
    """Of polygons (n,): the box around all corners, not finite where a corner is not, and the area without sign."""

    left: NDArray[np.float64]
    top: NDArray[np.float64]
    right: NDArray[np.float64]
    bottom: NDArray[np.float64]
    area: NDArray[np.float64]


def polygon_extents(coordinates: NDArray, ring_offsets: NDArray, rings: NDArray) -> Extent:
    """Of objects whose rings follow each other, `rings` (n,) of them each, at least one of three corners."""
    found = np.empty((5, len(ring_offsets) - 1))
    if not len(rings):
        return Extent(*found)
    with np.errstate(invalid="ignore", over="ignore"):
        for first, last in _blocks(ring_offsets):
            start, end = ring_offsets[first], ring_offsets[last]
            xy = coordinates[start:end].reshape(-1, 2)
            x, y = np.ascontiguousarray(xy[:, 0]), np.ascontiguousarray(xy[:, 1])
            starts = (ring_offsets[first:last] - start) // 2
            ends = np.append(starts[1:], len(x)) - 1
            cross = np.empty_like(x)  # the last corner of a ring is followed by its first
            cross[:-1] = x[:-1] * y[1:] - y[:-1] * x[1:]
            cross[ends] = x[ends] * y[starts] - y[ends] * x[starts]
            for k, (least, values) in enumerate(((np.minimum, x), (np.minimum, y), (np.maximum, x), (np.maximum, y))):
                found[k, first:last] = least.reduceat(values, starts)
            found[4, first:last] = np.abs(np.add.reduceat(cross, starts)) / 2
        ways = (np.minimum, np.minimum, np.maximum, np.maximum, np.add)
        starts = np.cumsum(rings) - rings
        return Extent(*(way.reduceat(values, starts) for way, values in zip(ways, found)))


def _blocks(offsets: NDArray) -> Iterator[tuple[int, int]]:
    """(first, last) of rows that together have about BLOCK numbers, or one row that has more."""
    first, count = 0, len(offsets) - 1
    while first < count:
        last = int(np.searchsorted(offsets, offsets[first] + BLOCK, side="right")) - 1
        last = min(max(last, first + 1), count)
        yield first, last
        first = last


def run_totals(rle: NDArray[np.uint8], offsets: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many pixels compressed run lengths cover, -1 where they are none, and how many of these are the object.

    `offsets` (n + 1,): where the bytes of each of n objects begin, none without any. See `masks` for the format.
    """
    covered, inside = np.zeros(len(offsets) - 1, np.int64), np.zeros(len(offsets) - 1, np.int64)
    for first, last in _blocks(offsets):
        start, end = offsets[first], offsets[last]
        part = _totals(rle[start:end], offsets[first : last + 1] - start)
        covered[first:last], inside[first:last] = part
    return covered, inside


def all_are_digits(rle: NDArray[np.uint8]) -> bool:
    """Whether these bytes are of those that compressed run lengths are written in."""
    return not len(rle) or (int(rle.min()) >= 48 and int(rle.max()) <= 111)


def _totals(encoded: NDArray[np.uint8], offsets: NDArray) -> tuple[NDArray, NDArray]:
    digits = encoded - np.uint8(48)  # what is below wraps to above 63
    last = (digits & 32) == 0
    broken = np.maximum.reduceat(digits, offsets[:-1]) > 63
    broken |= ~last[offsets[1:] - 1]
    last[offsets[1:] - 1] = True
    ends = np.flatnonzero(last) + 1
    lengths = np.diff(ends, prepend=0)
    values, place = (digits[ends - lengths] & 31).astype(np.int64), np.arange(len(ends))
    for k in range(1, min(DIGITS, int(lengths.max(initial=0)))):
        place = place[lengths[place] > k]
        values[place] |= (digits[ends[place] - lengths[place] + k] & 31).astype(np.int64) << 5 * k
    values -= np.where(digits[ends - 1] & 16, 1 << 5 * np.minimum(lengths, DIGITS), 0)
    first = np.searchsorted(ends, offsets, side="right")  # of each object's numbers
    broken[np.searchsorted(first, np.flatnonzero(lengths > DIGITS), side="right") - 1] = True
    # From the fourth number on it is the difference to the last but one: two sums, of the object and of the rest.
    counts = np.diff(first)
    position = np.arange(len(values)) - np.repeat(first[:-1], counts)
    totals = []
    for wanted, count in ((position % 2 == 1, counts // 2), ((position % 2 == 0) & (position > 0), (counts - 1) // 2)):
        before = np.cumsum(count) - count
        sums = np.concatenate([[0], np.cumsum(values[wanted])])
        runs = sums[1:] - np.repeat(sums[before], count)
        if len(runs) and runs.min() < 0:
            broken[np.searchsorted(before, np.flatnonzero(runs < 0), side="right") - 1] = True
        sums = np.concatenate([[0], np.cumsum(runs)])
        totals.append(sums[before + count] - sums[before])
    inside, outside = totals
    broken |= values[first[:-1]] < 0
    return np.where(broken, -1, inside + outside + values[first[:-1]]), np.where(broken, 0, inside)
