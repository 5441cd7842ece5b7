"""Objects whose masks are made while their data set is listed, from outlines or connected areas, as run lengths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from datamodules.columns import Strings, object_ids, offsets_of
from datamodules.images import image_size
from datamodules.index import MaskKind, ObjectIndex, check_unique


class Encoded(NamedTuple):
    """One object: the place of its image, and COCO's compressed run lengths, or None without pixels."""

    image: int
    native_id: str
    category: int
    rle: dict[str, Any] | None


def index_run_lengths(
    images: Sequence[Path],
    objects: Iterable[Encoded],
    dataset: str,
    *,
    categories: tuple[str, ...] = (),
    left_out: Sequence[str] = (),
) -> ObjectIndex:
    """List objects in the order of their images; those without pixels are left out and counted, behind `left_out`.

    Raises ValueError or FileNotFoundError naming an image that is unreadable or of another size than a mask on it.
    """
    sizes = np.array([image_size(image) for image in images], np.int32).reshape(-1, 2)
    kept: list[Encoded] = []
    columns: list[tuple[int, ...]] = []  # area, box
    empty: list[str] = []
    for found in objects:
        if found.rle is None or (area := int(coco_mask.area(found.rle))) == 0:
            empty.append(found.native_id)
            continue
        if tuple(found.rle["size"]) != tuple(sizes[found.image].tolist()):
            raise ValueError(
                f"the annotation of {images[found.image]} is {tuple(found.rle['size'])} (H, W), the image "
                f"{tuple(sizes[found.image].tolist())}; they must be of one size, fetch both again"
            )
        x, y, width, height = (int(value) for value in coco_mask.toBbox(found.rle))
        kept.append(found)
        columns.append((area, x, y, x + width - 1, y + height - 1))
    order = np.argsort([found.image for found in kept], kind="stable").tolist() if kept else []
    kept = [kept[i] for i in order]
    table = np.array([columns[i] for i in order], np.int64).reshape(-1, 5)
    offsets = offsets_of([len(found.rle["counts"]) for found in kept if found.rle])
    nothing = [f"{len(empty):,} objects without pixels, the first is {empty[0]}"] if empty else []
    native_ids = [found.native_id for found in kept]
    index = ObjectIndex(
        dataset=dataset,
        image_paths=Strings.of(str(image.absolute()) for image in images),
        image_size=sizes,
        object_id=object_ids(dataset, native_ids),
        native_id=Strings.of(native_ids),
        image=np.array([found.image for found in kept], np.int32),
        box=table[:, 1:].astype(np.int32),
        area=table[:, 0].copy(),
        category=np.array([found.category for found in kept], np.int32),
        mask_kind=np.full(len(kept), MaskKind.RLE, np.uint8),
        categories=categories,
        mask_range=np.stack([offsets[:-1], offsets[1:]], axis=1),
        rle=np.frombuffer(b"".join(found.rle["counts"] for found in kept if found.rle), np.uint8),
        left_out=(*left_out, *nothing),
    )
    check_unique(index)
    return index
