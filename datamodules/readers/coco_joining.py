"""The lists of a COCO file joined: each annotation with its image and category, those that belong to none left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from datamodules.columns import Strings
from datamodules.index import ObjectIndex
from datamodules.readers.coco_lists import Boxes, Categories, Images, column
from datamodules.readers.coco_values import LISTED, Wrong

UNKNOWN = -1  # a box or an area that the file does not say


@dataclass
class Joined:
    """Images sorted by id, and the annotations (n,) by their images; `good` are those that can be objects."""

    names: Strings
    sizes: NDArray[np.int32]
    categories: tuple[str, ...]
    order: NDArray[np.int64]  # where the file lists the annotations
    ids: NDArray[np.int64]
    image: NDArray[np.int32]
    category: NDArray[np.int32]  # -1 without
    good: NDArray[np.bool_]
    wrong: Wrong

    @classmethod
    def of(cls, images: Images, found: Boxes, categories: Categories) -> Joined:
        """Of two images with one id the first counts, of two annotations likewise."""
        (order, again), wanted = images.by_id(), column(found.image_ids)
        for i in again.tolist():
            found.wrong.add(f"image {images.ids[i]}", f"its id is used twice; {images.names[i]!r} is left out")
        known = column(images.ids)[order]
        category_ids, classes = np.array(sorted(categories.names), np.int64), column(found.category_ids)
        image, listed = _places(wanted, known)
        category, named = _places(classes, category_ids)
        joined = cls(
            names=Strings.of(images.names[i] for i in order.tolist()),
            sizes=column(images.sizes, 2)[order].astype(np.int32),
            categories=tuple(categories.names[i] for i in category_ids.tolist()),
            order=np.argsort(image, kind="stable"),
            ids=column(found.ids).astype(np.int64),
            image=image,
            category=np.where(named, category, -1).astype(np.int32),
            good=np.ones(len(wanted), bool),
            wrong=found.wrong,
        )
        joined.refuse(~listed, lambda i: f"image_id is {wanted[i]:.0f}, which the file does not list (is it complete?)")
        unnamed = named | (classes == -1) | categories.none_listed
        joined.refuse(~unnamed, lambda i: f"category_id is {classes[i]:.0f}, which the file does not list")
        joined.refuse(_repeated(joined.ids), lambda i: "its id is used twice; the first one counts")
        for name in ("ids", "image", "category", "good"):
            setattr(joined, name, getattr(joined, name)[joined.order])
        return joined

    def refuse(self, bad: NDArray[np.bool_], why: Callable[[int], str]) -> None:
        """Leave out these annotations (n,) for this reason, if they are not yet."""
        places = np.flatnonzero(bad & self.good)
        self.good[places] = False
        for i in places[:LISTED].tolist():
            self.wrong.add(f"annotation {self.ids[i]}", why(i))
        self.wrong.count += max(0, len(places) - LISTED)


def _places(wanted: NDArray, known: NDArray) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Where the wanted ids stand among the known, sorted ones, 0 where they do not; and whether they do."""
    if not len(known):
        return np.zeros(len(wanted), np.int32), np.zeros(len(wanted), bool)
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found = known[places] == wanted
    return np.where(found, places, 0).astype(np.int32), found


def _repeated(ids: NDArray) -> NDArray[np.bool_]:
    """All but the first of each id."""
    order = np.argsort(ids, kind="stable")
    again = np.zeros(len(ids), bool)
    again[order[1:]] = np.diff(ids[order]) == 0
    return again


def inclusive_boxes(boxes: NDArray, sizes: NDArray) -> NDArray[np.int32]:
    """COCO's (x, y, width, height) as the pixels they touch, inside the image."""
    last = np.stack([sizes[:, 1], sizes[:, 0]], axis=1) - 1
    with np.errstate(invalid="ignore", over="ignore"):
        first = np.clip(np.floor(boxes[:, :2]), 0, last)
        end = np.clip(np.ceil(boxes[:, :2] + boxes[:, 2:]) - 1, first, last)
    return np.nan_to_num(np.concatenate([first, end], axis=1), nan=UNKNOWN).astype(np.int32)


def on_image(boxes: NDArray, sizes: NDArray) -> NDArray[np.bool_]:
    """Which boxes (n, 4), as x, y, width, height, cover some of an image of this size (n, 2) as (H, W)."""
    x, y, width, height = boxes.T
    with np.errstate(invalid="ignore", over="ignore"):
        covers = (width > 0) & (height > 0) & (x < sizes[:, 1]) & (y < sizes[:, 0]) & (x + width > 0) & (y + height > 0)
        return np.asarray(covers & np.isfinite(x + y + width + height), bool)


def shares_of_an_image(x: NDArray, y: NDArray, other_x: NDArray, other_y: NDArray) -> NDArray[np.bool_]:
    """Where all of these lie between 0 and 1, as boxes and corners do that are shares of their image, not pixels."""
    low, high = (reduce(least, (x, y, other_x, other_y)) for least in (np.minimum, np.maximum))
    with np.errstate(invalid="ignore"):
        return np.asarray((low >= 0) & (high <= 1), bool)


def with_refused(index: ObjectIndex, left_out: list[str], wrong: Wrong) -> ObjectIndex:
    """The index with what was left out of it: sentences, and the list of entries with wrong values."""
    if wrong.count:
        values = "entry with a wrong value" if wrong.count == 1 else "entries with wrong values"
        left_out = [*left_out, f"{wrong.count:,} {values}: {wrong.first}"]
    return replace(index, left_out=tuple(left_out), refused=Strings.of(wrong.sentences))
