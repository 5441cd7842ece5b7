"""Boxes without masks in COCO files: ImageNet's 600,000 as columns, each standing for itself as a filled mask."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.columns import Strings, object_ids
from datamodules.index import MaskKind, ObjectIndex
from datamodules.readers.coco import check_duplicates, image_files, inclusive_boxes, places_of, read_lists
from datamodules.readers.coco_lists import Categories, Images, column


class Boxes:
    """The annotations' boxes as the file has them; segmentations are passed over."""

    def __init__(self) -> None:
        self.ids, self.image_ids, self.category_ids = array("q"), array("q"), array("q")
        self.boxes = array("d")  # x, y, width, height; not a number where there is none
        self.crowds = 0

    def add(self, entry: dict[str, Any]) -> None:
        if entry.get("iscrowd"):
            self.crowds += 1
            return
        x, y, width, height = entry.get("bbox") or (np.nan,) * 4
        self.boxes.extend((x, y, width, height))
        self.ids.append(entry["id"])
        self.image_ids.append(entry["image_id"])
        category = entry.get("category_id")
        self.category_ids.append(-1 if category is None else category)


def read_boxes(
    annotation_file: Path, image_folders: Sequence[Path], dataset: str, *, ids_of: str | None = None
) -> ObjectIndex:
    """The boxes of a COCO file as objects, sorted by image id and then as in the file; native ids are annotation ids.

    The mask of such an object is its box, filled: the pixels that it touches (float boxes are rounded outward), cut to
    the image. Segmentations are not read. Crowds, and boxes that are missing, not finite, of no size or outside of
    their image are left out and counted. Images without boxes stay.

    Args:
        image_folders: where the images may lie; the first folder that holds the first image is used.
        ids_of: the data set the ids are made for, where it is not `dataset` itself.
    Raises FileNotFoundError for missing files; ValueError naming the annotation for duplicate ids, unknown images and
    categories, and entries that are not what the format says.
    """
    found = Boxes()
    images, categories = read_lists(annotation_file, found)
    try:
        index = _joined(images, found, categories, dataset=dataset, ids_of=ids_of or dataset, folders=image_folders)
    except ValueError as error:
        raise ValueError(f"{annotation_file}: {error}") from None
    return index


def _joined(
    images: Images, found: Boxes, categories: Categories, dataset: str, ids_of: str, folders: Sequence[Path]
) -> ObjectIndex:
    image_order = np.argsort(column(images.ids), kind="stable")
    sizes = column(images.sizes, 2)[image_order].astype(np.int32)
    ids = column(found.ids).astype(np.int64)
    image = places_of(column(found.image_ids), column(images.ids)[image_order], ids, "image")
    category_ids = np.array(sorted(categories.names), np.int64)
    category = places_of(column(found.category_ids), category_ids, ids, "category", unnamed=-1)
    check_duplicates(ids)
    boxes = column(found.boxes, 4)
    usable = _on_image(boxes, sizes[image])
    order = np.argsort(image, kind="stable")
    order = order[usable[order]]
    inclusive = inclusive_boxes(boxes[order], sizes[image[order]])
    left_out = []
    if found.crowds:
        left_out.append(f"{found.crowds:,} crowd annotations")
    if len(bad := ids[~usable]):
        left_out.append(f"{len(bad):,} annotations without a box on their image, the first is {bad[0]}")
    return ObjectIndex(
        dataset=dataset,
        image_paths=image_files(Strings.of(images.names[i] for i in image_order.tolist()), folders),
        image_size=sizes,
        object_id=object_ids(ids_of, ids[order].tolist()),
        native_id=Strings.of(map(str, ids[order].tolist())),
        image=image[order],
        box=inclusive,
        area=np.prod(inclusive[:, 2:] - inclusive[:, :2] + 1, axis=1, dtype=np.int64),
        category=category[order],
        mask_kind=np.full(len(order), MaskKind.BOX, np.uint8),
        categories=tuple(categories.names[i] for i in category_ids.tolist()),
        left_out=tuple(left_out),
    )


def _on_image(boxes: NDArray, sizes: NDArray) -> NDArray[np.bool_]:
    """Which boxes (n, 4), as x, y, width, height, cover some of an image of this size (n, 2) as (H, W)."""
    first, side, end = boxes[:, :2], boxes[:, 2:], sizes[:, ::-1]
    with np.errstate(invalid="ignore", over="ignore"):
        covers = (side > 0) & (first < end) & (first + side > 0)
    return np.isfinite(boxes).all(axis=1) & covers.all(axis=1)
