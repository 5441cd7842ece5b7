"""COCO and LVIS annotation files: up to 1.3 million annotations, read one by one and kept as columns only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from datamodules.columns import Strings, object_ids, offsets_of
from datamodules.index import MaskKind, ObjectIndex
from datamodules.masks import rle_of_polygons
from datamodules.readers.coco_lists import AnnotationList, Annotations, Categories, Images, column
from datamodules.readers.json_stream import list_elements

UNKNOWN = -1  # a box or an area that the file does not say
SMALL = 16  # only objects that the file calls smaller than this (px), or thinner than 2 px, can turn out to be empty


def read_coco(
    annotation_file: Path, image_folders: Sequence[Path], dataset: str, *, ids_of: str | None = None
) -> ObjectIndex:
    """The objects of a COCO or LVIS annotation file, sorted by image id and then as in the file.

    Polygons and both kinds of run lengths are kept as they are; crowds and objects without pixels are left out and
    counted. Images without annotations stay. COCO knows no void.

    Args:
        image_folders: where the images may lie; the first folder that holds the first image is used.
        ids_of: the data set the ids are made for, where it is not `dataset` itself.
    Raises FileNotFoundError for missing files; ValueError naming the annotation for duplicate ids, unknown images and
    categories, run lengths of another size than the image, and entries that are not what the format says.
    """
    annotations = Annotations()
    images, categories = read_lists(annotation_file, annotations)
    try:
        index = _joined(images, annotations, categories, dataset, ids_of or dataset)
        paths = image_files(index.image_paths, image_folders)
        return replace(_without_empty(index, annotations), image_paths=paths)
    except ValueError as error:
        raise ValueError(f"{annotation_file}: {error}") from None


def read_lists(annotation_file: Path, annotations: AnnotationList) -> tuple[Images, Categories]:
    """The lists of a COCO file, entry by entry; annotations go into the given list.

    Raises FileNotFoundError for a missing file, ValueError naming the entry that is not what the format says.
    """
    images, categories = Images(), Categories()
    lists: dict[str, Images | AnnotationList | Categories] = {
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    for key, entry in list_elements(annotation_file):
        if key in lists:
            try:
                lists[key].add(entry)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                native = entry.get("id", "without id") if isinstance(entry, dict) else repr(entry)[:60]
                what = f"has no {error}" if isinstance(error, KeyError) else f"is not as COCO's format says: {error}"
                raise ValueError(f"entry {native} of {key!r} in {annotation_file} {what}") from None
    if not images.ids:
        raise ValueError(
            f"{annotation_file} lists no images; expected COCO's keys 'images', 'annotations', 'categories'"
        )
    return images, categories


def _joined(images: Images, annotations: Annotations, categories: Categories, dataset: str, ids_of: str) -> ObjectIndex:
    """One index of the three lists, its image paths still names."""
    image_order = np.argsort(column(images.ids), kind="stable")
    sizes = column(images.sizes, 2)[image_order].astype(np.int32)
    ids = column(annotations.ids).astype(np.int64)
    image = places_of(column(annotations.image_ids), column(images.ids)[image_order], ids, "image")
    category_ids = np.array(sorted(categories.names), np.int64)
    category = places_of(column(annotations.category_ids), category_ids, ids, "category", unnamed=-1)
    check_duplicates(ids)
    kinds, lengths = column(annotations.kinds).astype(np.uint8), column(annotations.lengths).astype(np.int64)
    _check_rle_sizes(column(annotations.rle_sizes, 2), sizes[image[kinds == MaskKind.RLE]], ids[kinds == MaskKind.RLE])
    ranges = np.zeros((len(ids), 2), np.int64)
    for kind in (MaskKind.POLYGONS, MaskKind.RLE):
        offsets = offsets_of(lengths[kinds == kind])
        ranges[kinds == kind] = np.stack([offsets[:-1], offsets[1:]], axis=1)
    order = np.argsort(image, kind="stable")
    nowhere = np.full(len(ids), -1, np.int32)
    return ObjectIndex(
        dataset=dataset,
        image_paths=Strings.of(images.names[i] for i in image_order),
        image_size=sizes,
        object_id=object_ids(ids_of, ids[order].tolist()),
        native_id=Strings.of(map(str, ids[order].tolist())),
        image=image[order],
        box=inclusive_boxes(column(annotations.boxes, 4), sizes[image])[order],
        area=np.nan_to_num(column(annotations.areas), nan=UNKNOWN).astype(np.int64)[order],
        category=category[order],
        mask_kind=kinds[order],
        categories=tuple(categories.names[i] for i in category_ids.tolist()),
        mask_file=nowhere,
        mask_value=nowhere,
        void_value=nowhere,
        mask_range=ranges[order],
        ring_offsets=offsets_of(column(annotations.ring_lengths)),
        coordinates=column(annotations.coordinates),
        rle=np.frombuffer(annotations.rle, np.uint8),
    )


def places_of(
    wanted: NDArray, known: NDArray, ids: NDArray, what: str, unnamed: int | None = None
) -> NDArray[np.int32]:
    """Where the wanted ids stand among the known, sorted ones; `unnamed` stands for none at all."""
    if len(known) > 1 and np.any(again := np.diff(known) == 0):
        raise ValueError(f"{what} id {known[1:][again][0]} is used twice")
    places = np.searchsorted(known, wanted)
    found = np.zeros(len(wanted), bool)
    inside = places < len(known)
    found[inside] = known[places[inside]] == wanted[inside]
    if unnamed is not None:
        places = np.where(wanted == unnamed, -1, places)
        found |= wanted == unnamed
    if not found.all():
        first = int(np.flatnonzero(~found)[0])
        raise ValueError(
            f"annotation {ids[first]} belongs to {what} {wanted[first]:.0f}, which the file does not list "
            f"({int((~found).sum())} such annotations); is this file complete?"
        )
    return places.astype(np.int32)


def check_duplicates(ids: NDArray) -> None:
    """Raise ValueError naming an annotation id that is used twice."""
    ordered = np.sort(ids)
    again = ordered[1:][np.diff(ordered) == 0]
    if len(again):
        raise ValueError(
            f"annotation id {again[0]} is used twice ({len(again)} such ids); ids must be unique in a file"
        )


def _check_rle_sizes(found: NDArray, expected: NDArray, ids: NDArray) -> None:
    wrong = np.flatnonzero((found != expected).any(axis=1))
    if len(wrong):
        i = wrong[0]
        sizes = [tuple(size[i].tolist()) for size in (found, expected)]
        raise ValueError(f"the mask of annotation {ids[i]} is {sizes[0]}, its image {sizes[1]} (H, W)")


def inclusive_boxes(boxes: NDArray, sizes: NDArray) -> NDArray[np.int32]:
    """COCO's (x, y, width, height) as the pixels they touch, inside the image."""
    last = np.stack([sizes[:, 1], sizes[:, 0]], axis=1) - 1
    first = np.clip(np.floor(boxes[:, :2]), 0, last)
    end = np.clip(np.ceil(boxes[:, :2] + boxes[:, 2:]) - 1, first, last)
    return np.nan_to_num(np.concatenate([first, end], axis=1), nan=UNKNOWN).astype(np.int32)


def image_files(names: Strings, folders: Sequence[Path]) -> Strings:
    """The paths of these images. Raises FileNotFoundError when some are missing, listing each folder only once."""
    folder = next((folder for folder in folders if (folder / names[0]).is_file()), None)
    if folder is None:
        tried = ", ".join(str(folder) for folder in folders)
        raise FileNotFoundError(
            f"image {names[0]} is in none of {tried}; fetch the images and put them into one of them"
        )
    folder = folder.absolute()
    parents = {os.path.dirname(name) for name in names}
    listed = {parent: set(os.listdir(folder / parent)) if (folder / parent).is_dir() else set() for parent in parents}
    missing = [name for name in names if os.path.basename(name) not in listed[os.path.dirname(name)]]
    if missing:
        raise FileNotFoundError(
            f"{len(missing):,} of {len(names):,} images are missing in {folder}, the first is {missing[0]}; fetch them"
        )
    return Strings.of(f"{folder}{os.sep}{name}" for name in names)


def _without_empty(index: ObjectIndex, annotations: Annotations) -> ObjectIndex:
    """Boxes and areas that the file does not say are measured; objects that have no pixels are left out."""
    thin = (index.box[:, 2:] - index.box[:, :2] < 1).any(axis=1)
    unknown = (index.area == UNKNOWN) | (index.box == UNKNOWN).any(axis=1)
    keep = np.ones(len(index), bool)
    without = index.mask_range[:, 0] == index.mask_range[:, 1]
    for i in np.flatnonzero((index.area < SMALL) | thin | unknown | without).tolist():
        area, box = _measured(index, i)
        keep[i] = area > 0
        if unknown[i]:
            index.area[i], index.box[i] = area, box
    empty = [*annotations.empty, *(int(index.native_id[i]) for i in np.flatnonzero(~keep).tolist())]
    left_out = []
    if annotations.crowds:
        left_out.append(f"{annotations.crowds:,} crowd annotations")
    if empty:
        left_out.append(f"{len(empty):,} annotations without pixels, the first is {empty[0]}")
    return replace(index if keep.all() else index.select(keep), left_out=tuple(left_out))


def _measured(index: ObjectIndex, i: int) -> tuple[int, tuple[int, int, int, int]]:
    height, width = (int(side) for side in index.image_size[index.image[i]])
    if index.mask_kind[i] == MaskKind.RLE:
        rle: dict | None = {"size": [height, width], "counts": index.run_lengths(i)}
    else:
        rle = rle_of_polygons(index.polygons(i), (height, width))
    if rle is None:
        return 0, (0, 0, 0, 0)
    x, y, box_width, box_height = (int(value) for value in coco_mask.toBbox(rle))
    return int(coco_mask.area(rle)), (x, y, x + box_width - 1, y + box_height - 1)
