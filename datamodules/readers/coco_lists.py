"""The three lists of a COCO or LVIS file as growing columns: machine numbers in arrays, nothing kept per object.

Values are taken as they are where they are what the format says; another one sends its entry through `coco_values`,
which reads it, or leaves the entry out and names it.
"""

from __future__ import annotations

from array import array
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datamodules.index import MaskKind
from datamodules.readers.coco_values import (
    LARGEST,
    UNREADABLE,
    Wrong,
    annotation_of,
    boxed_of,
    compressed_counts,
    image_name,
    image_of,
    is_crowd,
    mapping,
    unusable,
    whole_number,
)

NOWHERE = (np.nan,) * 4  # the box of an annotation that does not say one


def column(values: array, *shape: int) -> NDArray:
    """The numbers of an array as NumPy sees them, not copied; `shape` is that of a row."""
    return np.frombuffer(values, values.typecode).reshape(-1, *shape) if len(values) else np.zeros((0, *shape))


class Images:
    def __init__(self, wrong: Wrong | None = None) -> None:
        self.ids, self.sizes, self.names = array("q"), array("i"), list[str]()
        self.wrong, self.left_out = wrong or Wrong(), 0

    def add(self, image: dict[str, Any]) -> None:
        try:
            self._take(image)
        except UNREADABLE:
            try:
                self._take(image_of(image))
            except UNREADABLE as error:
                self.wrong.add(*unusable("image", image, len(self.ids) + self.left_out + 1, error))
                self.left_out += 1

    def by_id(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the images by id, and those of images whose id another one had before."""
        ids = column(self.ids)
        order = np.argsort(ids, kind="stable")
        again = np.zeros(len(ids), bool)
        again[1:] = np.diff(ids[order]) == 0
        return order[~again], np.sort(order[again])

    def _take(self, image: dict[str, Any]) -> None:
        number, height, width, name = image["id"], image["height"], image["width"], image_name(image)
        if not (height > 0 and width > 0 and height * width <= LARGEST and isinstance(name, str) and name):
            raise ValueError
        array("q", (number, height, width))  # raises where one is no whole number
        self.ids.append(number)
        self.sizes.extend((height, width))
        self.names.append(name)


class Categories:
    def __init__(self, wrong: Wrong | None = None) -> None:
        self.names: dict[int, str] = {}
        self.wrong, self.left_out = wrong or Wrong(), 0

    def add(self, category: dict[str, Any]) -> None:
        """Take a class, or leave it out with its annotations; of two with one id the first counts."""
        try:
            number, name = whole_number(mapping(category), "id"), category["name"]
            if not isinstance(name, str | int | float) or isinstance(name, bool):
                raise ValueError(f"name is {name!r:.40}, expected a text")
            if self.names.setdefault(number, str(name)) != str(name):
                raise ValueError(
                    f"its id is used twice, for {self.names[number]!r} and {name!r:.40}; the first one counts"
                )
        except UNREADABLE as error:
            self.wrong.add(*unusable("category", category, len(self.names) + self.left_out + 1, error))
            self.left_out += 1

    @property
    def none_listed(self) -> bool:
        """Whether a file knows no classes at all: its objects then have none, whatever number they say."""
        return not self.names and not self.left_out


class AnnotationList(Protocol):
    """What can be made of the annotations of a file, one by one."""

    wrong: Wrong

    def add(self, entry: dict[str, Any]) -> None: ...


class Boxes:
    """The annotations' boxes as the file has them; segmentations are passed over."""

    def __init__(self, crowds: bool = False) -> None:
        self.ids, self.image_ids, self.category_ids = array("q"), array("q"), array("q")
        self.boxes = array("d")  # x, y, width, height; not a number where there is none
        self.with_crowds, self.crowds, self.wrong = crowds, 0, Wrong()

    def add(self, entry: dict[str, Any]) -> None:
        """Take an annotation, or leave it out as a crowd, or as one with a wrong value."""
        try:
            self._take(entry)
        except UNREADABLE:
            self._undo()
            try:
                self._take(self._careful(entry))
            except UNREADABLE as error:
                self._undo()
                self.wrong.add(*unusable("annotation", entry, self._seen + 1, error))

    _careful = staticmethod(boxed_of)

    @property
    def _seen(self) -> int:
        return len(self.ids) + self.crowds + self.wrong.count

    def _undo(self) -> None:
        """Drop what an annotation left behind that could not be taken whole; its id is what it takes last."""
        del self.image_ids[len(self.ids) :], self.category_ids[len(self.ids) :], self.boxes[4 * len(self.ids) :]

    def _is_left_out(self, entry: dict[str, Any]) -> bool:
        """Whether an annotation that says `iscrowd` is one, and crowds are no objects."""
        if crowd := is_crowd(entry) and not self.with_crowds:
            self.crowds += 1
        return crowd

    def _take(self, entry: dict[str, Any]) -> None:
        if not (entry.get("iscrowd") and self._is_left_out(entry)):
            self._keep(entry)

    def _keep(self, entry: dict[str, Any]) -> None:
        """Box, image, category and, last, its own number."""
        category = entry.get("category_id")
        x, y, width, height = entry.get("bbox") or NOWHERE
        self.boxes.extend((x, y, width, height))
        self.image_ids.append(entry["image_id"])
        self.category_ids.append(-1 if category is None else category)
        self.ids.append(entry["id"])


class Annotations(Boxes):
    """Objects with their masks as the file has them: polygons, or run lengths, which are compressed if they are not."""

    def __init__(self, crowds: bool = False) -> None:
        super().__init__(crowds)
        self.areas = array("d")  # not a number where the file does not say it
        self.kinds, self.lengths = array("B"), array("q")  # `lengths`: rings of an object, or bytes of its run lengths
        self.ring_lengths, self.coordinates = array("q"), array("d")
        self.rle, self.rle_sizes = bytearray(), array("i")
        self.empty, self.boxed = array("q"), 0  # those without any mask, and how many of these have a box
        self._whole = 0, 0, 0, 0, 0  # annotations, rings, bytes, sizes, numbers when something was last undone

    _careful = staticmethod(annotation_of)

    @property
    def _seen(self) -> int:
        return super()._seen + len(self.empty)

    def _undo(self) -> None:
        super()._undo()
        count, rings, encoded, sizes = len(self.ids), *self._whole[1:4]
        for kind, length in zip(self.kinds[self._whole[0] : count], self.lengths[self._whole[0] : count]):
            rings, encoded, sizes = (
                (rings + length, encoded, sizes) if kind == MaskKind.POLYGONS else (rings, encoded + length, sizes + 2)
            )
        numbers = self._whole[4] + sum(self.ring_lengths[self._whole[1] : rings])
        self._whole = count, rings, encoded, sizes, numbers
        del self.areas[count:], self.kinds[count:], self.lengths[count:]
        del self.ring_lengths[rings:], self.coordinates[numbers:], self.rle[encoded:], self.rle_sizes[sizes:]

    def _take(self, entry: dict[str, Any]) -> None:
        segmentation = entry.get("segmentation")
        if not segmentation:
            self._take_empty(entry)
            return
        if entry.get("iscrowd") and self._is_left_out(entry):
            return
        if isinstance(segmentation, list):
            self.kinds.append(MaskKind.POLYGONS)
            self.lengths.append(self._polygons(segmentation))
        else:
            self.kinds.append(MaskKind.RLE)
            self.lengths.append(self._run_lengths(segmentation))
        self.areas.append(entry.get("area", np.nan))
        self._keep(entry)

    def _take_empty(self, entry: dict[str, Any]) -> None:
        if not (entry.get("iscrowd") and self._is_left_out(entry)):
            self.empty.append(entry["id"])
            self.boxed += bool(entry.get("bbox"))

    def _polygons(self, rings: list[list[float]]) -> int:
        for ring in rings:
            numbers = len(ring)
            if numbers % 2 or numbers < 6:  # fewer than three points enclose nothing, if they are not pairs
                raise ValueError
            self.coordinates.extend(ring)
            self.ring_lengths.append(numbers)
        return len(rings)

    def _run_lengths(self, segmentation: dict[str, Any]) -> int:
        counts, (height, width) = segmentation["counts"], segmentation["size"]
        if isinstance(counts, str) and not "0" <= counts[-1:] <= "O":
            raise ValueError  # the last of a number's digits; it may be a list or bytes as text
        self.rle_sizes.extend((height, width))
        encoded = counts.encode() if isinstance(counts, str) else compressed_counts(counts, height, width)
        self.rle.extend(encoded)
        return len(encoded)
