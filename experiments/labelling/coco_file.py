"""labels.json of a `label` run, in COCO's format, with the annotation file's own numbers where there is one."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote

import numpy as np

from datamodules.catalog import find, root_of
from datamodules.files import whole_file
from datamodules.index import ObjectIndex
from datamodules.readers.coco_lists import Categories, Images, column
from datamodules.readers.json_stream import list_elements
from experiments.composition.tree import Tree
from experiments.labelling.rows import LabelRow


def write_labels(file: Path, rows: Iterable[LabelRow], index: ObjectIndex, about: Tree, names: Names) -> None:
    """labels.json from rows in the order of the index: the file is there when it is complete.

    `empty` lists the objects without a mask, which are no annotations.
    """
    empty: list[int] = []

    def annotations() -> Iterator[Tree]:
        for row in rows:
            i = row["position"]
            if row["segmentation"] is None:
                empty.append(row["object_id"])
                continue
            yield {
                "id": names.annotation(i),
                "image_id": names.image(int(index.image[i])),
                "category_id": names.category(int(index.category[i])),
                "segmentation": row["segmentation"],
                "area": row["area"],
                "bbox": row["bbox"],
                "iscrowd": 0,
                "score": row["score"],
                "object_id": row["object_id"],
            }

    with whole_file(file) as partial, partial.open("w") as out:
        out.write(f'{{"info": {json.dumps(about)}')
        _write_list(out, "images", names.images())
        _write_list(out, "categories", names.categories())
        _write_list(out, "annotations", annotations())
        _write_list(out, "empty", empty)
        out.write("\n}\n")


def _write_list(out: TextIO, key: str, entries: Iterable[Any]) -> None:
    out.write(f',\n"{key}": [')
    for number, entry in enumerate(entries):
        out.write(f"{',' if number else ''}\n{json.dumps(entry)}")
    out.write("\n]")


class Names:
    """What images, categories and annotations are called in labels.json.

    By the numbers of the annotation file that the objects were listed from, so that the masks can be joined with it;
    where there is none, by running numbers from 1.
    """

    def __init__(self, index: ObjectIndex, source: Path | None = None) -> None:
        self.index = index
        self.image_ids, self.category_ids = np.arange(index.num_images) + 1, np.arange(len(index.categories)) + 1
        self.file_names: list[str] | None = None
        self.native = source is not None and self._taken_from(source)
        folders = {os.path.dirname(path) for path in index.image_paths}
        self.folder = os.path.commonpath(folders) if folders else ""

    @classmethod
    def of(cls, index: ObjectIndex, spec: str | Tree, root: str | None) -> Names:
        """For the objects of one entry of a recipe's data."""
        data_set = find(spec if isinstance(spec, str) else spec["name"])
        sources = [] if data_set.parts else data_set.sources(root_of(data_set, root))
        return cls(index, sources[0] if [path.suffix for path in sources] == [".json"] else None)

    def _taken_from(self, source: Path) -> bool:
        """Take the file's own numbers; False when it does not list these images and categories in the index's order."""
        images, categories = Images(), Categories()
        for key, entry in list_elements(source):
            if key == "images":
                images.add(entry)
            elif key == "categories":
                categories.add(entry)
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
        return True

    def annotation(self, i: int) -> int:
        return int(self.index.native_id[i]) if self.native else i + 1

    def image(self, k: int) -> int:
        return int(self.image_ids[k])

    def category(self, place: int) -> int:
        return int(self.category_ids[place]) if place >= 0 else 0

    def images(self) -> Iterator[Tree]:
        """Those that hold objects."""
        for k in np.unique(self.index.image).tolist():
            height, width = self.index.image_size[k].tolist()
            path = self.index.image_paths[k]
            name = os.path.relpath(path, self.folder) if self.file_names is None else self.file_names[k]
            yield {"id": self.image(k), "file_name": name, "height": height, "width": width}

    def categories(self) -> Iterator[Tree]:
        """All of the data set, and one for objects without."""
        for number, name in zip(self.category_ids.tolist(), self.index.categories):
            yield {"id": number, "name": name}
        if (np.asarray(self.index.category) < 0).any():
            yield {"id": 0, "name": "object"}


def _base_name(path: str) -> str:
    """What a picture is called without its folders, however the file spells it: Windows' paths, URLs, Unicode."""
    return unicodedata.normalize("NFC", unquote(re.split(r"[\\/]", path)[-1]))
