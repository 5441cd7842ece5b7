"""What images, categories and annotations are called in files of COCO's format that the suite writes: labels, the truth
of an evaluation, detections.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote

import numpy as np

from datamodules.catalog import find, root_of
from datamodules.index import ObjectIndex
from datamodules.readers.coco_joining import on_image, shares_of_an_image
from datamodules.readers.coco_lists import Boxes, Categories, Images, column
from datamodules.readers.coco_values import UNREADABLE, is_crowd, whole_number
from datamodules.readers.json_stream import list_elements
from datamodules.selection import Selection
from datamodules.sets.coco import own_file


class Names:
    """The ids of a data set's images, categories and annotations, and their annotated boxes.

    By the numbers of the annotation file that the objects were listed from, so that masks can be joined with it;
    where there is none, by running numbers from 1.

    Args:
        whole: all objects of the file are meant: images that hold only crowds are listed, too.
        crowds_are_objects: then none is copied.
    """

    def __init__(
        self, index: ObjectIndex, source: Path | None = None, *, whole: bool = False, crowds_are_objects: bool = False
    ) -> None:
        self.index, self.source = index, source
        self.image_ids, self.category_ids = np.arange(index.num_images) + 1, np.arange(len(index.categories)) + 1
        self.file_names: list[str] | None = None
        self.boxes = np.asarray(index.box, np.float64)  # (n, 4) as x, y, width, height
        self.boxes[:, 2:] += 1 - self.boxes[:, :2]
        self.listed = np.zeros(index.num_images, bool)
        self.listed[index.image] = True
        self._crowds_on = array("q")  # the image of each crowd
        self.native = source is not None and self._taken_from(source)
        if not self.native or crowds_are_objects:
            self._crowds_on = array("q")
        if whole:
            self.listed |= np.isin(self.image_ids, column(self._crowds_on))
        self.num_crowds = int(np.isin(column(self._crowds_on), self.image_ids[self.listed]).sum())
        folders = {os.path.dirname(path) for path in index.image_paths}
        self.folder = os.path.commonpath(folders) if folders else ""

    @classmethod
    def of(cls, index: ObjectIndex, spec: str | Mapping[str, Any], root: str | None) -> Names:
        """For the objects of one entry of a recipe's data."""
        selection = Selection.of(spec)
        data_set = find(selection.name)
        sources = [] if data_set.parts else data_set.sources(root_of(data_set, root))
        if [path.suffix for path in sources] != [".json"]:
            return cls(index)
        kind, _, place = selection.name.partition(":")
        as_objects = kind in ("coco_json", "boxes") and own_file(kind, place).crowds_are_objects
        return cls(index, sources[0], whole=selection == Selection(selection.name), crowds_are_objects=as_objects)

    def _taken_from(self, source: Path) -> bool:
        """Take the file's own numbers; False when it does not list these images and categories in the index's order."""
        images, categories, annotations = Images(), Categories(), Boxes(crowds=True)
        for key, entry in list_elements(source):
            if key == "images":
                images.add(entry)
            elif key == "categories":
                categories.add(entry)
            elif key == "annotations":
                annotations.add(entry)
                if (image := _image_of_crowd(entry)) is not None:
                    self._crowds_on.append(image)
        (order, _), category_ids = images.by_id(), sorted(categories.names)
        named = [categories.names[number] for number in category_ids]
        same = len(order) == self.index.num_images and tuple(named) == self.index.categories
        if not same or not all(
            _base_name(path) == _base_name(images.names[k]) for path, k in zip(self.index.image_paths, order.tolist())
        ):
            return False
        self.image_ids = column(images.ids)[order].astype(np.int64)
        self.category_ids = np.array(category_ids, np.int64)
        self.file_names = [images.names[k] for k in order.tolist()]  # with their folders: the pictures are found again
        self._take_boxes(annotations)
        return True

    def _take_boxes(self, annotations: Boxes) -> None:
        """The file's own boxes where it says one that can be; of two annotations with one id the first counts."""
        ids, wanted = column(annotations.ids).astype(np.int64), np.array([int(name) for name in self.index.native_id])
        if not len(ids):
            return
        order = np.argsort(ids, kind="stable")
        places = order[np.minimum(np.searchsorted(ids[order], wanted), len(ids) - 1)]
        boxes, sizes = column(annotations.boxes, 4)[places], self.index.image_size[self.index.image]
        said = (ids[places] == wanted) & on_image(boxes, sizes) & ~shares_of_an_image(*boxes.T)
        self.boxes[said] = boxes[said]

    def crowds(self) -> Iterator[dict[str, Any]]:
        """The file's crowds on the images that are listed, one after the other, as they stand there."""
        if self.num_crowds and self.source is not None:
            listed = set(self.image_ids[self.listed].tolist())
            for key, entry in list_elements(self.source):
                if key == "annotations" and _image_of_crowd(entry) in listed:
                    yield entry

    def box(self, i: int) -> list[float]:
        """COCO's x, y, width, height; whole numbers without a point."""
        return [int(value) if value == int(value) else value for value in self.boxes[i].tolist()]

    def annotation(self, i: int) -> int:
        return int(self.index.native_id[i]) if self.native else i + 1

    def image(self, k: int) -> int:
        return int(self.image_ids[k])

    def category(self, place: int) -> int:
        return int(self.category_ids[place]) if place >= 0 else 0

    def images(self) -> Iterator[dict[str, Any]]:
        """Those that hold objects, or crowds that are copied."""
        for k in np.flatnonzero(self.listed).tolist():
            height, width = self.index.image_size[k].tolist()
            path = self.index.image_paths[k]
            name = os.path.relpath(path, self.folder) if self.file_names is None else self.file_names[k]
            yield {"id": self.image(k), "file_name": name, "height": height, "width": width}

    def categories(self) -> Iterator[dict[str, Any]]:
        """All of the data set, and one for objects without."""
        for number, name in zip(self.category_ids.tolist(), self.index.categories):
            yield {"id": number, "name": name}
        if (np.asarray(self.index.category) < 0).any():
            yield {"id": 0, "name": "object"}


def _image_of_crowd(entry: Any) -> int | None:
    """The number of a crowd's image; None for what is no crowd, or says nothing that can be read."""
    try:
        return whole_number(entry, "image_id") if entry.get("iscrowd") and is_crowd(entry) else None
    except UNREADABLE:
        return None


def _base_name(path: str) -> str:
    """What a picture is called without its folders, however the file spells it: Windows' paths, URLs, Unicode."""
    return unicodedata.normalize("NFC", unquote(re.split(r"[\\/]", path)[-1]))


def write_list(out: TextIO, key: str, entries: Iterable[Any]) -> None:
    """One more list of a JSON object that is being written, entry by entry, each on its line."""
    out.write(f',\n"{key}": [')
    for number, entry in enumerate(entries):
        out.write(f"{',' if number else ''}\n{json.dumps(entry)}")
    out.write("\n]")
