"""Objects whose masks lie in files, one file per image: the common part of PASCAL VOC, SBD and folders of masks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from datamodules.columns import Strings, object_ids
from datamodules.images import image_size
from datamodules.index import MaskKind, ObjectIndex, check_unique
from datamodules.mask_pictures import read_strength
from datamodules.masks import read_label_map


class Annotation(NamedTuple):
    """One mask file of an image: `values` are the objects in it, `categories` their places in the list of names."""

    image: Path
    mask: Path
    native_ids: Sequence[str]
    values: Sequence[int]
    categories: Sequence[int]


def index_label_maps(
    images: Sequence[Path],
    annotations: Iterable[Annotation],
    dataset: str,
    *,
    kind: MaskKind = MaskKind.LABEL,
    void_value: int = -1,
    categories: tuple[str, ...] = (),
    ids_of: str | None = None,
) -> ObjectIndex:
    """List objects whose masks are values in label maps.

    Args:
        images: all images, in the order of the index; several annotations may share one.
        kind: LABEL: pixels equal to the value, as stored; FOREGROUND: at least the value, as one sees them.
        void_value: pixels nobody labelled, -1 without.
        ids_of: the data set the ids are made for, where it is not `dataset` itself.
    Raises ValueError or FileNotFoundError naming the file when a mask is unreadable or does not fit its image.
    """
    rows = {image: number for number, image in enumerate(images)}
    sizes = np.zeros((len(images), 2), np.int32)
    mask_files: list[Path] = []
    native_ids: list[str] = []
    empty: list[str] = []
    columns: list[tuple[int, ...]] = []  # image, mask_file, value, category, area, box
    for annotation in annotations:
        labels = (read_label_map if kind is MaskKind.LABEL else read_strength)(annotation.mask)
        sizes[rows[annotation.image]] = _fitting_size(annotation, labels)
        for native_id, value, category in zip(annotation.native_ids, annotation.values, annotation.categories):
            area, box = _area_and_box(labels, value, kind)
            if area == 0:
                empty.append(f"{native_id} in {annotation.mask}")
                continue
            native_ids.append(native_id)
            columns.append((rows[annotation.image], len(mask_files), value, category, area, *box))
        mask_files.append(annotation.mask)
    table = np.array(columns, np.int64).reshape(-1, 9)
    order = np.argsort(table[:, 0], kind="stable")
    table, native_ids = table[order], [native_ids[i] for i in order]
    index = ObjectIndex(
        dataset=dataset,
        image_paths=Strings.of(str(image.absolute()) for image in images),
        image_size=sizes,
        object_id=object_ids(ids_of or dataset, native_ids),
        native_id=Strings.of(native_ids),
        image=table[:, 0].astype(np.int32),
        box=table[:, 5:].astype(np.int32),
        area=table[:, 4].copy(),
        category=table[:, 3].astype(np.int32),
        mask_kind=np.full(len(table), kind, np.uint8),
        categories=categories,
        mask_files=Strings.of(str(mask.absolute()) for mask in mask_files),
        mask_file=table[:, 1].astype(np.int32),
        mask_value=table[:, 2].astype(np.int32),
        void_value=np.full(len(table), void_value, np.int32),
        mask_range=np.zeros((len(table), 2), np.int64),
        left_out=(f"{len(empty)} objects without pixels, the first is {empty[0]}",) if empty else (),
    )
    check_unique(index)
    return index


def _area_and_box(labels: NDArray, value: int, kind: MaskKind) -> tuple[int, tuple[int, int, int, int]]:
    mask = labels == value if kind is MaskKind.LABEL else labels >= value
    found = find_objects(mask.view(np.uint8))
    if not found:
        return 0, (0, 0, 0, 0)
    ys, xs = found[0]
    return int(np.count_nonzero(mask[ys, xs])), (xs.start, ys.start, xs.stop - 1, ys.stop - 1)


def _fitting_size(annotation: Annotation, labels: NDArray) -> tuple[int, int]:
    size = image_size(annotation.image, annotated=(int(labels.shape[0]), int(labels.shape[1])))
    if labels.shape != size:
        raise ValueError(
            f"mask {annotation.mask} is {labels.shape} (H, W), its image {annotation.image} is {size}; "
            "they must be of one size, fetch both again"
        )
    return size


def read_names(path: Path) -> list[str]:
    """The image names of a split, one per line (VOC's lists of a class have a second field, which is ignored)."""
    if not path.is_file():
        raise FileNotFoundError(f"the list of images {path} is missing")
    names = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    if not names:
        raise ValueError(f"the list of images {path} is empty; expected one image name per line")
    return names


T = TypeVar("T")


def with_progress(steps: Sequence[T], what: str) -> Iterator[T]:
    """The same steps, with a line every ten seconds, readable in the log of a batch job."""
    shown = time.monotonic()
    for done, step in enumerate(steps):
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f"  {what}: {done:,} of {len(steps):,}", file=sys.stderr, flush=True)
        yield step
