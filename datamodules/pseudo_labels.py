"""Masks that a model made in place of a data set's own: `{name: coco2017/val, labelled: runs/<hash>/labels.json}`.

The file is that of a `label` run: COCO's format, where every annotation says which object it labels (`object_id`). The
objects keep their ids; those that got no mask are left out. Crowds, copied from the data set's own file, label nothing.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from datamodules import cache
from datamodules.columns import Strings, offsets_of
from datamodules.index import MaskKind, ObjectIndex
from datamodules.readers.coco_lists import Annotations, column
from datamodules.readers.coco_values import UNREADABLE, is_crowd, mapping, unusable, whole_number
from datamodules.readers.json_stream import list_elements

MEASURED = 10_000  # masks are measured so many at a time


def labelled(index: ObjectIndex, file: Path | str) -> ObjectIndex:
    """The objects of `index` that this file has masks for, with these masks, their tight boxes and their areas.

    The boxes of their annotations stay with them, as `annotated_box`.

    Raises FileNotFoundError without the file; ValueError when it is no label run's, when a mask is not of its image's
    size, and when it labels none of the objects.
    """
    file = Path(file)
    labels = open_labels(file)
    places = np.searchsorted(labels.object_id, index.object_id)
    keep = np.zeros(len(index), bool)
    inside = places < len(labels)
    keep[inside] = labels.object_id[places[inside]] == index.object_id[inside]
    if not keep.any():
        raise ValueError(f"{file} labels none of the {len(index):,} objects of {index.dataset}: made from other data?")
    part, places = index.select(keep), places[keep]
    _check_sizes(part, labels, places, file)
    missing = int(np.count_nonzero(~keep))
    without = [f"{missing:,} object{'' if missing == 1 else 's'} without a pseudo-label"] if missing else []
    nowhere = np.full(len(part), -1, np.int32)
    return replace(
        part,
        box=labels.box[places],
        annotated_box=part.annotated,
        area=labels.area[places],
        mask_kind=labels.mask_kind[places],
        mask_file=nowhere,
        mask_value=nowhere,
        void_value=nowhere,  # what nobody labelled in the data set's own masks is not known here
        mask_range=labels.mask_range[places],
        ring_offsets=labels.ring_offsets,
        coordinates=labels.coordinates,
        rle=labels.rle,
        left_out=(*index.left_out, *without),
        content=f"{index.content}+{labels.content}",
    )


def _check_sizes(part: ObjectIndex, labels: ObjectIndex, places: NDArray, file: Path) -> None:
    found, expected = labels.image_size[labels.image[places]], part.image_size[part.image]
    wrong = np.flatnonzero((found != expected).any(axis=1))
    if len(wrong):
        i = int(wrong[0])
        sizes = [tuple(size[i].tolist()) for size in (found, expected)]
        raise ValueError(f"{file}: the mask of object {part.native_id[i]} is {sizes[0]}, its image {sizes[1]} (H, W)")


def open_labels(file: Path) -> ObjectIndex:
    """The masks of a label run, sorted by object; listed once and memory-mapped ever after, as data sets are."""
    if not file.is_file():
        raise FileNotFoundError(f"pseudo-labels {file} are not there; make them with `python -m experiments.label`")
    folder = cache.folder_of(f"labels:{file.parent.name}", [str(file.resolve()), *cache.state_of([file])])
    return cache.opened(folder, lambda: (_read_labels(file), [file]), what=str(file))


def _read_labels(file: Path) -> ObjectIndex:
    annotations, object_ids, seen = Annotations(), array("q"), 0
    for key, entry in list_elements(file):
        if key != "annotations":
            continue
        seen += 1
        try:
            if mapping(entry).get("iscrowd") and is_crowd(entry):
                continue
            annotations.add(entry)
            number = entry.get("object_id")
            object_ids.append(number if type(number) is int else whole_number(entry, "object_id"))
        except UNREADABLE as error:
            who, why = unusable("annotation", entry, seen, error)
            raise ValueError(f"{file} is not the labels.json of a label run: {who}: {why}") from None
    if annotations.wrong.count:
        raise ValueError(f"{file} is not the labels.json of a label run: {annotations.wrong.first}")
    if not len(annotations.ids) or len(annotations.ids) != len(object_ids):
        raise ValueError(f"{file} is not the labels.json of a label run: it has no masks, or crowds alone")
    kinds = column(annotations.kinds)
    if (kinds != MaskKind.RLE).any():
        raise ValueError(f"{file} is not the labels.json of a label run: its masks are not run lengths")
    ids = column(object_ids).astype(np.int64)
    _check_each_once(ids, column(annotations.ids), file)
    offsets = offsets_of(column(annotations.lengths).astype(np.int64))
    rle, rle_sizes = np.frombuffer(annotations.rle, np.uint8), column(annotations.rle_sizes, 2)
    sizes, image = np.unique(rle_sizes, axis=0, return_inverse=True)
    order = np.argsort(ids, kind="stable")
    return ObjectIndex(
        dataset=f"labels of {file.parent.name}",
        image_paths=Strings.of([""] * len(sizes)),  # an image stands for all of its size
        image_size=sizes.astype(np.int32),
        object_id=ids[order],
        native_id=Strings.of(map(str, column(annotations.ids)[order].tolist())),
        image=image.reshape(-1).astype(np.int32)[order],
        box=tight_boxes(rle, offsets, rle_sizes)[order],
        area=column(annotations.areas).astype(np.int64)[order],
        category=np.full(len(ids), -1, np.int32),
        mask_kind=kinds.astype(np.uint8)[order],
        mask_range=np.stack([offsets[:-1], offsets[1:]], axis=1)[order],
        rle=rle,
    )


def _check_each_once(object_ids: NDArray[np.int64], annotation_ids: NDArray, file: Path) -> None:
    """Raise ValueError naming annotations that label one object, each (n,) of its annotation."""
    order = np.argsort(object_ids, kind="stable")
    again = np.flatnonzero(np.diff(object_ids[order]) == 0)
    if not len(again):
        return
    first = int(again[np.argmin(order[again])])  # in the file's order
    one, other = annotation_ids[order[first : first + 2]].tolist()
    more = len(again) - 1
    others = f", as do {more:,} further annotation{'' if more == 1 else 's'} one labelled before" if more else ""
    raise ValueError(
        f"{file}: annotations {one} and {other} label the same object, object_id {object_ids[order[first]]}{others}; "
        "an object takes one mask: leave one of them, or make the labels again"
    )


def tight_boxes(rle: NDArray[np.uint8], offsets: NDArray[np.int64], sizes: NDArray) -> NDArray[np.int32]:
    """The boxes (n, 4), inclusive xyxy, of masks of these sizes (n, 2) as (H, W): their `bbox` is the annotated one.

    `offsets` (n + 1,): where the bytes of each mask's compressed run lengths begin.
    """
    found = np.zeros((len(sizes), 4), np.float64)
    for first in range(0, len(sizes), MEASURED):
        last = min(first + MEASURED, len(sizes))
        ends, part = offsets[first : last + 1].tolist(), sizes[first:last].tolist()
        encoded = [
            {"size": size, "counts": bytes(rle[start:end])} for size, start, end in zip(part, ends[:-1], ends[1:])
        ]
        found[first:last] = coco_mask.toBbox(encoded)
    found[:, 2:] += found[:, :2] - 1
    return found.astype(np.int32)
