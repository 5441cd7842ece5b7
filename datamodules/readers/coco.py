"""COCO and LVIS annotation files: up to 1.3 million annotations, read one by one and kept as columns only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from datamodules.columns import Strings, gathered, object_ids, offsets_of
from datamodules.index import MaskKind, ObjectIndex
from datamodules.masks import rle_of_polygons
from datamodules.readers.coco_joining import (
    UNKNOWN,
    Joined,
    inclusive_boxes,
    on_image,
    shares_of_an_image,
    with_refused,
)
from datamodules.readers.coco_lists import AnnotationList, Annotations, Categories, Images, column
from datamodules.readers.coco_masks import Extent, all_are_digits, polygon_extents, run_totals
from datamodules.readers.image_files import image_files
from datamodules.readers.json_stream import list_elements, read_text
from datamodules.readers.other_files import what_it_is

SMALL = 16  # only objects smaller than this (px), or thinner than 2 px, can turn out to be empty
SHORT = 16  # bytes of run lengths: an empty mask is one run
COUNTED = 2_000  # of the others of a file so many are counted, which takes long
SPAN = "({0:.4g}, {1:.4g}) to ({2:.4g}, {3:.4g})"  # of an extent
FAR = 10  # times the longer side of an image: a corner beyond is no place in it, and filling it would take all memory


def read_coco(
    annotation_file: Path,
    image_folders: Sequence[Path],
    dataset: str,
    *,
    ids_of: str | None = None,
    crowds_are_objects: bool = False,
    annotated: bool = True,
) -> ObjectIndex:
    """The objects of a COCO or LVIS annotation file, sorted by image id and then as in the file.

    Polygons and both kinds of run lengths are kept as they are; crowds and objects without pixels are left out and
    counted, as are entries with a value that cannot be what it says, which are listed in `refused`. Images without
    annotations stay. COCO knows no void.

    Args:
        image_folders: where the images may lie, see `image_files`.
        ids_of: the data set the ids are made for, where it is not `dataset` itself.
        crowds_are_objects: CVAT says `iscrowd: 1` of whatever was drawn with its brush.
        annotated: without, images and categories are all that there is, as in COCO's image_info files.
    Raises FileNotFoundError for missing files; ValueError saying what a file is that is none of COCO's, and for one of
    which no annotation can be read, naming the first ones.
    """
    annotations = Annotations(crowds_are_objects)
    images, categories = read_lists(annotation_file, annotations)
    try:
        index = _joined(images, annotations, categories, dataset, ids_of or dataset)
        if annotated:
            _check_some_left(index, annotations, annotation_file)
        return replace(index, image_paths=image_files(index.image_paths, image_folders))
    except ValueError as error:
        raise ValueError(f"{annotation_file}: {error}") from None


def read_lists(annotation_file: Path, annotations: AnnotationList) -> tuple[Images, Categories]:
    """The lists of a COCO file, entry by entry; annotations go into the given list.

    Raises FileNotFoundError for a missing file, ValueError saying what the file is if not COCO's.
    """
    images, categories = Images(annotations.wrong), Categories(annotations.wrong)
    lists: dict[str, Images | AnnotationList | Categories] = {
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    for key, entry in list_elements(annotation_file, lists=("images", "annotations")):
        if key in lists:
            lists[key].add(entry)
    if not images.ids and images.left_out:
        raise ValueError(f"{annotation_file}: none of its images can be read: {annotations.wrong.first}")
    if not images.ids:
        raise ValueError(f"{annotation_file} {what_it_is(read_text(annotation_file))}")
    return images, categories


def _joined(images: Images, annotations: Annotations, categories: Categories, dataset: str, ids_of: str) -> ObjectIndex:
    """One index of the three lists, its image paths still names."""
    lists = Joined.of(images, annotations, categories)
    kinds, lengths = column(annotations.kinds).astype(np.uint8), column(annotations.lengths).astype(np.int64)
    ranges = np.zeros((len(kinds), 2), np.int64)
    for kind in (MaskKind.POLYGONS, MaskKind.RLE):
        offsets = offsets_of(lengths[kinds == kind])
        ranges[kinds == kind] = np.stack([offsets[:-1], offsets[1:]], axis=1)
    order, sizes = lists.order, lists.sizes[lists.image]
    boxes, area = column(annotations.boxes, 4)[order], column(annotations.areas)[order]
    box = inclusive_boxes(boxes, sizes)
    box[~on_image(boxes, sizes) | shares_of_an_image(*boxes.T)] = UNKNOWN
    nowhere = np.full(len(kinds), -1, np.int32)
    index = ObjectIndex(
        dataset=dataset,
        image_paths=lists.names,
        image_size=lists.sizes,
        object_id=object_ids(ids_of, lists.ids.tolist()),
        native_id=Strings.of(map(str, lists.ids.tolist())),
        image=lists.image,
        box=box,
        area=np.where((area > 0) & (area <= sizes.prod(axis=1, dtype=np.int64)), area, UNKNOWN).astype(np.int64),
        category=lists.category,
        mask_kind=kinds[order],
        categories=lists.categories,
        mask_file=nowhere,
        mask_value=nowhere,
        void_value=nowhere,
        mask_range=ranges[order],
        ring_offsets=offsets_of(column(annotations.ring_lengths)),
        coordinates=column(annotations.coordinates),
        rle=np.frombuffer(annotations.rle, np.uint8),
    )
    drawn, encoded = (order[index.mask_kind == kind] for kind in (MaskKind.POLYGONS, MaskKind.RLE))
    doubtful = np.zeros(len(index), bool)
    # Each kind as the file lists it: an object's place there, among those of its kind.
    polygons, runs = np.cumsum(kinds == MaskKind.POLYGONS) - 1, np.cumsum(kinds == MaskKind.RLE) - 1
    rings = lengths[kinds == MaskKind.POLYGONS]
    doubtful[index.mask_kind == MaskKind.POLYGONS] = _check_polygons(index, lists, rings, polygons[drawn])
    rle_sizes = column(annotations.rle_sizes, 2)[runs[encoded]]
    doubtful[index.mask_kind == MaskKind.RLE] = _check_run_lengths(index, lists, rle_sizes)
    keep = _with_pixels(index, lists.good, doubtful)
    empty = [*annotations.empty, *lists.ids[lists.good & ~keep].tolist()]
    left_out = []
    if annotations.crowds:
        left_out.append(f"{annotations.crowds:,} crowd annotations")
    if empty:
        left_out.append(f"{len(empty):,} annotations without pixels, the first is {empty[0]}")
    return with_refused(index if keep.all() else index.select(keep), left_out, annotations.wrong)


def _check_polygons(index: ObjectIndex, lists: Joined, rings: NDArray, places: NDArray) -> NDArray[np.bool_]:
    """Refuse polygons whose corners can be no places in their images; returns which may have no pixels.

    Those are small or thinner than a pixel, whatever area and box the file says, or reach beyond their image.
    `rings` (m,) are those of each polygon of the file, `places` (m,) says where it lists those of the index.
    """
    objects = np.flatnonzero(index.mask_kind == MaskKind.POLYGONS)
    extent = Extent(*(v[places] for v in polygon_extents(index.coordinates, index.ring_offsets, rings)))
    left, top, right, bottom, area = extent
    height, width = index.image_size[index.image[objects]].T
    far = FAR * np.maximum(height, width)

    def refuse(bad: NDArray, why: str) -> None:
        said = np.zeros(len(index), bool)
        said[objects] = bad
        lists.refuse(said, lambda i: f"segmentation {why}".format(*(v[np.searchsorted(objects, i)] for v in extent)))

    with np.errstate(invalid="ignore", over="ignore"):
        refuse(~np.isfinite(left + top + right + bottom), "has a coordinate that is no finite number")
        distant = (np.minimum(left, top) < -far) | (np.maximum(right, bottom) > far)
        refuse(distant, f"reaches from {SPAN}, far beyond its image")
        refuse(shares_of_an_image(left, top, right, bottom), f"reaches from {SPAN}: shares of its image, not pixels?")
        longer, shorter = (side(right - left, bottom - top) for side in (np.maximum, np.minimum))
        beyond = (np.minimum(left, top) < 0) | (right > width) | (bottom > height)
        return np.asarray((area < np.maximum(SMALL, longer)) | (shorter < 2) | beyond, bool)


def _check_run_lengths(index: ObjectIndex, lists: Joined, sizes: NDArray) -> NDArray[np.bool_]:
    """Refuse run lengths, of masks of these sizes (m, 2), that do not fill their image; returns which are empty.

    Of many objects those are counted that can be empty, and some thousand others; all, once one of these is damaged.
    """
    objects = np.flatnonzero(index.mask_kind == MaskKind.RLE)
    expected, ranges = index.image_size[index.image[objects]], index.mask_range[objects]
    pixels, lengths = expected.prod(axis=1, dtype=np.int64), ranges[:, 1] - ranges[:, 0]
    covered, inside = pixels.copy(), np.ones(len(objects), np.int64)
    some = lengths <= SHORT
    some[:: max(1, len(objects) // COUNTED)] = True
    for rows in (np.flatnonzero(some), np.flatnonzero(~some)):
        part = gathered(index.rle, ranges[rows, 0], lengths[rows])
        covered[rows], inside[rows] = run_totals(part, offsets_of(lengths[rows]))
        if (covered[rows] == pixels[rows]).all() and all_are_digits(index.rle):
            break

    def refuse(bad: NDArray, why: Callable[[int], str]) -> None:
        said = np.zeros(len(index), bool)
        said[objects] = bad
        lists.refuse(said, lambda i: why(int(np.searchsorted(objects, i))))

    refuse(
        (sizes[:, 0] != expected[:, 0]) | (sizes[:, 1] != expected[:, 1]),
        lambda k: f"its mask is {tuple(sizes[k].tolist())}, its image {tuple(expected[k].tolist())} (H, W)",
    )
    refuse(
        covered != pixels,
        lambda k: (
            "its run lengths are damaged"
            if covered[k] < 0
            else f"its run lengths have {covered[k]} of {pixels[k]} pixels"
        ),
    )
    return inside == 0


def _with_pixels(index: ObjectIndex, good: NDArray[np.bool_], doubtful: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which are good and have pixels; boxes and areas that the file does not say, or cannot mean, are measured."""
    thin = (index.box[:, 2] <= index.box[:, 0]) | (index.box[:, 3] <= index.box[:, 1])
    unknown = (index.area == UNKNOWN) | (index.box[:, 0] == UNKNOWN)
    keep = good.copy()
    for i in np.flatnonzero(good & (doubtful | (index.area < SMALL) | thin | unknown)).tolist():
        area, box = _measured(index, i)
        keep[i] = area > 0
        if index.area[i] == UNKNOWN or (index.area[i] == 0 and area >= SMALL):  # 0.163: a share of the image
            index.area[i] = area
        if index.box[i, 0] == UNKNOWN:
            index.box[i] = box
    return keep


def _check_some_left(index: ObjectIndex, annotations: Annotations, file: Path) -> None:
    """Raise ValueError for a file of which nothing can be used, saying why."""
    if len(index):
        return
    if annotations.crowds and not annotations.wrong.count:
        raise ValueError(
            f"all of its {annotations.crowds:,} annotations with masks are crowds (iscrowd: 1), as CVAT writes what is "
            f"drawn with its brush; coco_json:{file}?crowds=objects takes them as objects"
        )
    if other := what_it_is(read_text(file)):
        raise ValueError(f"it {other}")
    if len(annotations.empty) and annotations.boxed == len(annotations.empty):
        raise ValueError(
            f"its {annotations.boxed:,} annotations have boxes but no masks (segmentation), which boxes:{file} reads"
        )
    if annotations.wrong.count:
        raise ValueError(f"no annotation can be read: {annotations.wrong.first}")


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
