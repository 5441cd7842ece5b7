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
from datamodules.readers.coco_values import UNREADABLE, is_crowd, mapping, whole_number
from datamodules.readers.json_stream import list_elements
from datamodules.selection import Selection
from datamodules.sets.coco import own_file


class Names:
    """The ids of a data set's images, categories and annotations, and their annotated boxes.

    By the numbers of the annotation file that the objects were listed from, so that masks can be joined with it;
    where there is none, by running numbers from 1. So are annotations of a file that numbers one of them 0 or below:
    the official evaluation counts what is matched with annotation 0 as not found.

    Args:
        whole: all objects of the file are meant: its images without any are listed, too.
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
        self._renumbered = False
        self._own: dict[str, dict[int, dict[str, Any]]] = {}  # the file's entries, once they were passed
        self.native = source is not None and self._taken_from(source)
        if not self.native or crowds_are_objects:
            self._crowds_on = array("q")
        if whole and self.native:
            self.listed[:] = True
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
        self._renumbered = len(annotations.ids) > 0 and int(column(annotations.ids).min()) < 1
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

    def entries(self) -> Iterator[Any]:
        """The annotations of the file, one after the other, as they stand there, whatever they are.

        What it says of the images that are listed and of its categories is taken in passing: of two entries with one id
        the first counts.
        """
        if self.source is None:
            return
        wanted = {"images": set(self.image_ids[self.listed].tolist()), "categories": set(self.category_ids.tolist())}
        own: dict[str, dict[int, dict[str, Any]]] = {key: {} for key in wanted}
        for key, entry in list_elements(self.source):
            if key == "annotations":
                yield entry
            elif key in own and (number := _number(entry)) is not None and number in wanted[key]:
                own[key].setdefault(number, entry)
        self._own = own

    def crowds(self) -> Iterator[dict[str, Any]]:
        """The file's crowds on the images that are listed, one after the other, as they stand there.

        Where annotations are numbered anew, these are after the objects.
        """
        if self.num_crowds:
            listed, number = set(self.image_ids[self.listed].tolist()), len(self.index)
            for entry in self.entries():
                if _image_of_crowd(entry) in listed:
                    number += 1
                    yield {**entry, "id": number} if self._renumbered else entry

    def box(self, i: int) -> list[float]:
        """COCO's x, y, width, height; whole numbers without a point."""
        return [int(value) if value == int(value) else value for value in self.boxes[i].tolist()]

    def annotation(self, i: int) -> int:
        return int(self.index.native_id[i]) if self.native and not self._renumbered else i + 1

    def image(self, k: int) -> int:
        return int(self.image_ids[k])

    def category(self, place: int) -> int:
        return int(self.category_ids[place]) if place >= 0 else 0

    def images(self, places: Iterable[int] | None = None) -> Iterator[dict[str, Any]]:
        """Those at `places` of the index, or all that are listed: the file's own entries where there is one."""
        own = self._taken_over("images")
        for k in np.flatnonzero(self.listed).tolist() if places is None else places:
            height, width = self.index.image_size[k].tolist()
            number, path = self.image(k), self.index.image_paths[k]
            name = os.path.relpath(path, self.folder) if self.file_names is None else self.file_names[k]
            yield {**own.get(number, {"id": number, "file_name": name}), "id": number, "height": height, "width": width}

    def categories(self) -> Iterator[dict[str, Any]]:
        """All of the data set, likewise, and one for objects without."""
        own = self._taken_over("categories")
        for number, name in zip(self.category_ids.tolist(), self.index.categories):
            yield {**own.get(number, {"id": number, "name": name}), "id": number}
        if (np.asarray(self.index.category) < 0).any():
            yield {"id": 0, "name": "object"}

    def _taken_over(self, key: str) -> dict[int, dict[str, Any]]:
        """The file's own entries by their ids, for which it is read again if need be; none where numbers are ours."""
        if self.native and not self._own:
            for _ in self.entries():
                pass
        return self._own.get(key, {})


def _number(entry: Any) -> int | None:
    """The id of an entry that says one."""
    try:
        return whole_number(mapping(entry), "id")
    except UNREADABLE:
        return None


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
