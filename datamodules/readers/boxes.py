"""Boxes without masks in COCO files: ImageNet's 600,000 as columns, each standing for itself as a filled mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datamodules.columns import Strings, object_ids
from datamodules.index import MaskKind, ObjectIndex
from datamodules.readers.coco import read_lists
from datamodules.readers.coco_joining import Joined, inclusive_boxes, on_image, shares_of_an_image, with_refused
from datamodules.readers.coco_lists import Boxes, Categories, Images, column
from datamodules.readers.image_files import image_files


def read_boxes(
    annotation_file: Path,
    image_folders: Sequence[Path],
    dataset: str,
    *,
    ids_of: str | None = None,
    crowds_are_objects: bool = False,
) -> ObjectIndex:
    """The boxes of a COCO file as objects, sorted by image id and then as in the file; native ids are annotation ids.

    The mask of such an object is its box, filled: the pixels that it touches (float boxes are rounded outward), cut to
    the image. Segmentations are not read. Crowds, and boxes that are missing, not finite, of no size or outside of
    their image are left out and counted. Images without boxes stay.

    Args:
        image_folders: where the images may lie, see `image_files`.
        ids_of: the data set the ids are made for, where it is not `dataset` itself.
    Raises FileNotFoundError for missing files; ValueError naming the annotation for duplicate ids, unknown images and
    categories, and entries that are not what the format says.
    """
    found = Boxes(crowds_are_objects)
    images, categories = read_lists(annotation_file, found)
    try:
        index = _joined(images, found, categories, dataset=dataset, ids_of=ids_of or dataset, folders=image_folders)
    except ValueError as error:
        raise ValueError(f"{annotation_file}: {error}") from None
    return index


def _joined(
    images: Images, found: Boxes, categories: Categories, dataset: str, ids_of: str, folders: Sequence[Path]
) -> ObjectIndex:
    lists = Joined.of(images, found, categories)
    boxes = column(found.boxes, 4)[lists.order]
    lists.refuse(
        shares_of_an_image(*boxes.T),
        lambda i: f"bbox is {boxes[i].tolist()}: shares of its image, not pixels?",
    )
    usable = on_image(boxes, lists.sizes[lists.image])
    bad = lists.ids[lists.good & ~usable]
    order = np.flatnonzero(usable & lists.good)
    if not len(order) and lists.wrong.count:
        raise ValueError(f"no annotation can be read: {lists.wrong.first}")
    inclusive = inclusive_boxes(boxes[order], lists.sizes[lists.image[order]])
    left_out = []
    if found.crowds:
        left_out.append(f"{found.crowds:,} crowd annotations")
    if len(bad):
        left_out.append(f"{len(bad):,} annotations without a box on their image, the first is {bad[0]}")
    index = ObjectIndex(
        dataset=dataset,
        image_paths=image_files(lists.names, folders),
        image_size=lists.sizes,
        object_id=object_ids(ids_of, lists.ids[order].tolist()),
        native_id=Strings.of(map(str, lists.ids[order].tolist())),
        image=lists.image[order],
        box=inclusive,
        area=np.prod(inclusive[:, 2:] - inclusive[:, :2] + 1, axis=1, dtype=np.int64),
        category=lists.category[order],
        mask_kind=np.full(len(order), MaskKind.BOX, np.uint8),
        categories=lists.categories,
    )
    return with_refused(index, left_out, lists.wrong)
