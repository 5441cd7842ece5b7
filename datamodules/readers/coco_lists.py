"""The three lists of a COCO or LVIS file as growing columns: machine numbers in arrays, nothing kept per object."""

from __future__ import annotations

from array import array
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from datamodules.index import MaskKind


def column(values: array, *shape: int) -> NDArray:
    """The numbers of an array as NumPy sees them, not copied; `shape` is that of a row."""
    return np.frombuffer(values, values.typecode).reshape(-1, *shape) if len(values) else np.zeros((0, *shape))


class Images:
    def __init__(self) -> None:
        self.ids, self.sizes, self.names = array("q"), array("i"), list[str]()

    def add(self, image: dict[str, Any]) -> None:
        self.ids.append(image["id"])
        self.sizes.extend((image["height"], image["width"]))
        # LVIS names no file, only where COCO's servers have it: .../train2017/000000391895.jpg
        self.names.append(image["file_name"] if "file_name" in image else "/".join(image["coco_url"].split("/")[-2:]))


class Categories:
    def __init__(self) -> None:
        self.names: dict[int, str] = {}

    def add(self, category: dict[str, Any]) -> None:
        if category["id"] in self.names:
            raise ValueError("its id is used twice")
        self.names[category["id"]] = str(category["name"])


class AnnotationList(Protocol):
    """What can be made of the annotations of a file, one by one."""

    def add(self, entry: dict[str, Any]) -> None: ...


class Annotations:
    """Objects with their masks as the file has them: polygons, or run lengths, which are compressed if they are not."""

    def __init__(self) -> None:
        self.ids, self.image_ids, self.category_ids = array("q"), array("q"), array("q")
        self.areas, self.boxes = array("d"), array("d")
        self.kinds, self.lengths = array("B"), array("q")  # `lengths`: rings of an object, or bytes of its run lengths
        self.ring_lengths, self.coordinates = array("q"), array("d")
        self.rle, self.rle_sizes = bytearray(), array("i")
        self.crowds, self.empty = 0, list[int]()

    def add(self, entry: dict[str, Any]) -> None:
        if entry.get("iscrowd"):
            self.crowds += 1
            return
        segmentation = entry["segmentation"]
        if not segmentation:
            self.empty.append(int(entry["id"]))
            return
        length = self._polygons(segmentation) if isinstance(segmentation, list) else self._run_lengths(segmentation)
        self.kinds.append(MaskKind.POLYGONS if isinstance(segmentation, list) else MaskKind.RLE)
        self.lengths.append(length)
        self.ids.append(entry["id"])
        self.image_ids.append(entry["image_id"])
        self.category_ids.append(entry.get("category_id", -1))
        self.areas.append(entry.get("area", np.nan))
        x, y, width, height = entry.get("bbox") or (np.nan,) * 4
        self.boxes.extend((x, y, width, height))

    def _polygons(self, rings: list[list[float]]) -> int:
        kept = 0
        for ring in rings:
            numbers = len(ring)
            if numbers % 2:
                raise ValueError(f"a polygon of {numbers} numbers, expected x, y, x, y, ...")
            if numbers >= 6:  # fewer than three points enclose nothing
                self.coordinates.extend(ring)
                self.ring_lengths.append(numbers)
                kept += 1
        return kept

    def _run_lengths(self, segmentation: dict[str, Any]) -> int:
        counts, (height, width) = segmentation["counts"], segmentation["size"]
        if isinstance(counts, list):
            if sum(counts) != height * width or min(counts) < 0:
                raise ValueError(f"run lengths of {sum(counts)} pixels for a mask of {height} x {width}")
            counts = coco_mask.frPyObjects(segmentation, height, width)["counts"]
        encoded = counts.encode() if isinstance(counts, str) else counts
        self.rle.extend(encoded)
        self.rle_sizes.extend((height, width))
        return len(encoded)
