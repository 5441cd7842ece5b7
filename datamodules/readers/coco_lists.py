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
    unusable,
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

    def _take(self, image: dict[str, Any]) -> None:
        number, height, width, name = image["id"], image["height"], image["width"], image_name(image)
        if not (height > 0 and width > 0 and height * width <= LARGEST and isinstance(name, str) and name):
            raise ValueError
        array("q", (number, height, width))  # raises where one is no whole number
        self.ids.append(number)
        self.sizes.extend((height, width))
        self.names.append(name)


class Categories:
    def __init__(self) -> None:
        self.names: dict[int, str] = {}

    def add(self, category: dict[str, Any]) -> None:
        number = int(category["id"])
        if self.names.setdefault(number, str(category["name"])) != str(category["name"]):
            raise ValueError("its id is used twice")


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
        if self._failed(entry) is None:
            return
        try:
            error = self._failed(self._careful(entry))
        except UNREADABLE as unread:
            error = unread
        if error is not None:
            self.wrong.add(*unusable("annotation", entry, self._seen + 1, error))

    @staticmethod
    def _careful(entry: Any) -> dict[str, Any]:
        return boxed_of(entry)

    @property
    def _seen(self) -> int:
        return len(self.ids) + self.crowds + self.wrong.count

    def _failed(self, entry: dict[str, Any]) -> Exception | None:
        """Take an annotation, whole or not at all."""
        count = len(self.ids)
        try:
            self._take(entry)
        except UNREADABLE as error:
            for values in (self.ids, self.image_ids, self.category_ids):
                del values[count:]
            del self.boxes[4 * count :]
            return error
        return None

    def _take(self, entry: dict[str, Any]) -> None:
        if self._is_left_out(entry):
            self.crowds += 1
        else:
            self._take_numbers(entry)

    def _is_left_out(self, entry: dict[str, Any]) -> bool:
        return bool(entry.get("iscrowd")) and is_crowd(entry) and not self.with_crowds

    def _take_numbers(self, entry: dict[str, Any]) -> None:
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

    @staticmethod
    def _careful(entry: Any) -> dict[str, Any]:
        return annotation_of(entry)

    @property
    def _seen(self) -> int:
        return super()._seen + len(self.empty)

    def _failed(self, entry: dict[str, Any]) -> Exception | None:
        count, rings, numbers = len(self.ids), len(self.ring_lengths), len(self.coordinates)
        encoded, sizes = len(self.rle), len(self.rle_sizes)
        if (error := super()._failed(entry)) is None:
            return None
        for values in (self.areas, self.kinds, self.lengths):
            del values[count:]
        del self.ring_lengths[rings:], self.coordinates[numbers:], self.rle[encoded:], self.rle_sizes[sizes:]
        return error

    def _take(self, entry: dict[str, Any]) -> None:
        if self._is_left_out(entry):
            self.crowds += 1
            return
        segmentation = entry.get("segmentation")
        if not segmentation:
            self.empty.append(entry["id"])
            self.boxed += bool(entry.get("bbox"))
            return
        polygons = isinstance(segmentation, list)
        self.lengths.append(self._polygons(segmentation) if polygons else self._run_lengths(segmentation))
        self.kinds.append(MaskKind.POLYGONS if polygons else MaskKind.RLE)
        self.areas.append(entry.get("area", np.nan))
        self._take_numbers(entry)

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
        if isinstance(counts, str) and (counts.startswith(("b'", 'b"')) or " " in counts or "," in counts):
            raise ValueError  # no run lengths as the format has them, but they may be read
        self.rle_sizes.extend((height, width))
        encoded = compressed_counts(counts, height, width)
        self.rle.extend(encoded)
        return len(encoded)
