"""truth.json of an evaluation by instances: the data set's own annotations of the images that are evaluated.

What lies in COCO's format is copied as it stands, crowds, ids and LVIS' fields included; other data are written so. An
object that the evaluation's selection leaves out (`min_area`, say) on an image that is evaluated becomes a region where
nothing counts, as a crowd is. Of data whose annotations nobody has there are images and categories alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from datamodules.catalog import find, open_index
from datamodules.coco_names import Names, write_list
from datamodules.files import whole_file
from datamodules.image_index import evaluation_images
from datamodules.index import MaskKind, ObjectIndex
from datamodules.readers.coco_values import UNREADABLE, annotation_of
from datamodules.selection import Selection
from experiments.composition.tree import Tree

NO_CATEGORY = {"id": 0, "name": "object"}  # of data without any


class Truth:
    """The images of an evaluation, what they and their categories are called, and the objects on them.

    Args:
        spec: the data set, as a recipe says it; `root`, `seed`: of the data.
    """

    def __init__(self, spec: str | Tree, root: str | None, seed: int) -> None:
        selection = Selection.of(spec)
        self.images = evaluation_images(spec, root, seed)
        self.index = self.images.objects
        self.upload = find(selection.name).upload
        self.whole = open_index(selection.name, root)  # with the same images, in the same order
        self.names = Names.of(self.whole, selection.name, root)
        self.own_masks = selection.labelled is None
        if len(self.index) and (np.asarray(self.index.mask_kind) == MaskKind.BOX).all():
            raise ValueError(f"{selection.name} has boxes without masks, and instances are scored by their masks")
        self.left_out = 0  # annotations of the file that are none, once it is written

    @property
    def categories(self) -> tuple[str, ...]:
        """Their names, in the order of labels."""
        return self.index.categories or (NO_CATEGORY["name"],)  # type: ignore[return-value]

    def category_id(self, label: int) -> int:
        """What a label is called in files."""
        return self.names.category(label) if self.index.categories else 0

    def image_id(self, place: int) -> int:
        """What the image at a place of `images` is called in files."""
        return self.names.image(int(self.images.rows[place]))

    def write(self, file: Path) -> None:
        """The file is there when it is complete."""
        with whole_file(file) as partial, partial.open("w") as out:
            out.write(f'{{"info": {json.dumps({"description": f"what {self.index.dataset} is scored against"})}')
            if self.names.native and self.own_masks:
                self._copy(out)
            else:
                write_list(out, "images", self._images())
                write_list(out, "categories", self.names.categories() if self.index.categories else [NO_CATEGORY])
                if not self.upload:
                    write_list(out, "annotations", self._drawn())
            out.write("\n}\n")

    def _copy(self, out: Any) -> None:
        """The file's own lists: of images and categories with one id the first counts, of annotations likewise."""
        rows = self.images.rows.tolist()

        def annotations() -> Iterator[Tree]:
            own = _Own(self, {self.names.image(k): k for k in rows})
            for entry in self.names.entries():
                yield from own.taken(entry)
            self.left_out = own.left_out

        entries = annotations()
        if self.upload:
            for _ in entries:
                raise ValueError(f"{self.names.source} has annotations, where {self.upload} alone should have them")
        else:
            write_list(out, "annotations", entries)
        write_list(out, "images", self.names.images(rows))
        named = islice(self.names.categories(), len(self.index.categories))  # no class for objects without
        write_list(out, "categories", named if self.index.categories else [NO_CATEGORY])

    def _images(self) -> Iterator[Tree]:
        for k in self.images.rows.tolist():
            height, width = self.whole.image_size[k].tolist()
            name = Path(self.whole.image_paths[k]).name
            yield {"id": self.names.image(k), "file_name": name, "height": height, "width": width}

    def _drawn(self) -> Iterator[Tree]:
        """Objects of the index, in its order."""
        selected = {number: i for i, number in enumerate(self.index.object_id.tolist())}
        for i in np.flatnonzero(np.isin(self.whole.image, self.images.rows)).tolist():
            place = selected.get(int(self.whole.object_id[i]))
            mask = _run_lengths(self.whole, i) if place is None else _run_lengths(self.index, place)
            yield {
                "id": self.names.annotation(i),
                "image_id": self.names.image(int(self.whole.image[i])),
                "category_id": self.names.category(int(self.whole.category[i])),
                "segmentation": mask,
                "area": int(coco_mask.area(mask)),
                "bbox": self.names.box(i),
                "iscrowd": int(place is None),
            }


class _Own:
    """The annotations of a COCO file that belong to an evaluation."""

    def __init__(self, truth: Truth, images: Mapping[int, int]) -> None:
        self.sizes = {number: truth.whole.image_size[k].tolist() for number, k in images.items()}
        self.listed, self.selected = (set(map(int, index.native_id)) for index in (truth.whole, truth.index))
        self.categories = set(truth.names.category_ids.tolist()) if truth.index.categories else None
        self.seen, self.left_out = set[int](), 0

    def taken(self, entry: Any) -> Iterator[Tree]:
        """An annotation with what makes it count or not; none of another image, or that no evaluation could read.

        One without a pixel stays: the official evaluation counts it as an object that nobody finds.
        """
        try:
            read = annotation_of(entry)
        except UNREADABLE:
            self.left_out += 1
            return
        number, size = read["id"], self.sizes.get(read["image_id"])
        if size is None:
            return
        mask = _encoded(read["segmentation"], size)
        known = number in self.listed
        usable = mask is not None and (known or read["iscrowd"] or not coco_mask.area(mask))
        if self.categories is None:
            read["category_id"] = NO_CATEGORY["id"]
        elif read["category_id"] not in self.categories:
            usable = False
        if number in self.seen or not usable:
            self.left_out += 1
            return
        self.seen.add(number)
        assert mask is not None
        if isinstance(read["segmentation"], dict) and isinstance(read["segmentation"]["counts"], bytes):
            read["segmentation"] = {**read["segmentation"], "counts": read["segmentation"]["counts"].decode()}
        if not np.isfinite(read["area"]):
            read["area"] = float(coco_mask.area(mask))
        if read["bbox"] is None:
            read["bbox"] = coco_mask.toBbox(mask).tolist()
        yield {**entry, **read, "iscrowd": int(number not in self.selected if known else read["iscrowd"])}


def _run_lengths(index: ObjectIndex, i: int) -> Tree:
    """The mask of an object as COCO writes it."""
    if index.mask_kind[i] == MaskKind.RLE:
        return {"size": list(index.size_of(i)), "counts": index.run_lengths(i).decode()}
    encoded = coco_mask.encode(np.asfortranarray(index.read_mask(i).mask))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def _encoded(segmentation: Any, size: list[int]) -> Tree | None:
    """Polygons or run lengths as compressed ones; None where there are none, or they are of another image."""
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        encoded: Tree = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
        return encoded
    if list(segmentation["size"]) != size:
        return None
    if isinstance(segmentation["counts"], list):
        return dict(coco_mask.frPyObjects(segmentation, *size))
    return segmentation
