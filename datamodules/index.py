"""The ObjectIndex: every object of a data set as columns: 860,000 objects are a few arrays, not Python objects.

A reader (datamodules/readers) fills an index; it is written once as .npy files outside the data root and memory-mapped
by every worker afterwards. Pixels are read only when an object is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.clicks.errors import row_ends
from datamodules.columns import OPTIONAL, StoredColumns, Strings, gathered, joined_offsets, object_ids, offsets_of
from datamodules.images import read_image
from datamodules.mask_pictures import read_strength
from datamodules.masks import MaskKind, mask_from_box, mask_from_polygons, mask_from_rle, read_label_map

__all__ = ["MaskKind", "ObjectIndex", "ObjectMask", "Strings", "concatenate", "object_ids"]


class ObjectMask(NamedTuple):
    """The pixels of one object: `mask` and `void`, each (H, W) uint8 of 0 and 1; `void` is None without."""

    mask: NDArray[np.uint8]
    void: NDArray[np.uint8] | None


@dataclass(frozen=True, eq=False)
class ObjectIndex(StoredColumns):
    """All objects of a data set, sorted by image. Boxes are inclusive xyxy, sizes (H, W), paths absolute.

    One row per object: `object_id`, `image` (row of the image columns), `box` (of the annotation; a sample's own box is
    measured on its mask), `area` in pixels, `category` (place in `categories`, -1 without), `native_id` (row of a
    string column), and where the mask is: `mask_kind`; in label maps `mask_file`, `mask_value` and `void_value`; else
    `mask_range`, start and end, of rings (polygons: `ring_offsets` point into `coordinates`) or of bytes of `rle`; or
    nowhere: the filled `box` is the mask.
    Masks that a model made bring their own `box`; that of the annotation is then kept as `annotated_box`.
    Where refinement starts from what another method predicted, `start_file` is the place of that mask in `start_files`
    (-1: this object has none); without rows, as in most sets, no object has one.
    """

    dataset: str
    image_paths: Strings
    image_size: NDArray[np.int32]  # (images, 2) as (H, W)
    object_id: NDArray[np.int64]
    native_id: Strings
    image: NDArray[np.int32]
    box: NDArray[np.int32]  # (objects, 4)
    area: NDArray[np.int64]
    category: NDArray[np.int32]
    mask_kind: NDArray[np.uint8]
    categories: tuple[str, ...] = ()
    mask_files: Strings = field(default_factory=lambda: Strings.of([]))
    mask_file: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))  # -1: the mask is in no file
    mask_value: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    void_value: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))  # -1 without void
    mask_range: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    ring_offsets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    coordinates: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # x, y, x, y, ... as in the file
    rle: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    start_files: Strings = field(default_factory=lambda: Strings.of([]), metadata=OPTIONAL)
    start_file: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32), metadata=OPTIONAL)
    annotated_box: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 4), np.int32), metadata=OPTIONAL)
    left_out: tuple[str, ...] = ()  # sentences that begin with a number: "11 crowd annotations"
    refused: Strings = field(default_factory=lambda: Strings.of([]), metadata=OPTIONAL)  # from the reader to the cache
    content: str = ""  # hash of the annotation files, set when the catalog builds the index

    def __post_init__(self) -> None:
        for name in ("mask_file", "mask_value", "void_value"):
            if len(getattr(self, name)) != len(self):
                object.__setattr__(self, name, np.full(len(self), -1, np.int32))
        if len(self.mask_range) != len(self):
            object.__setattr__(self, "mask_range", np.zeros((len(self), 2), np.int64))

    def __len__(self) -> int:
        return len(self.object_id)

    @property
    def num_images(self) -> int:
        return len(self.image_paths)

    @property
    def num_left_out(self) -> int:
        """How many annotations are no objects here, of all the sentences in `left_out`."""
        return sum(int(sentence.split()[0].replace(",", "")) for sentence in self.left_out)

    @property
    def annotated(self) -> NDArray[np.int32]:
        """(objects, 4): the boxes of the annotations, whoever made the masks."""
        return self.annotated_box if len(self.annotated_box) else self.box

    def image_path(self, i: int) -> Path:
        """The image file of object `i`."""
        return Path(self.image_paths[int(self.image[i])])

    def size_of(self, i: int) -> tuple[int, int]:
        """(H, W) of the image of object `i`, as its annotations say."""
        height, width = self.image_size[self.image[i]]
        return int(height), int(width)

    def read_image(self, i: int) -> NDArray[np.uint8]:
        """The image of object `i`, (H, W, 3) RGB, as its mask lies on it. Raises as `images.read_image`."""
        return read_image(self.image_path(i), self.size_of(i))

    def read_mask(self, i: int) -> ObjectMask:
        """Mask and void of object `i` at full size, (H, W) uint8 of 0 and 1.

        Raises ValueError or FileNotFoundError naming the object when its mask is unreadable or of another size.
        """
        size = self.size_of(i)
        kind = MaskKind(self.mask_kind[i])
        if kind in (MaskKind.LABEL, MaskKind.FOREGROUND):
            file = self.mask_files[int(self.mask_file[i])]
            pixels = read_label_map(file) if kind is MaskKind.LABEL else read_strength(file)
            labels = self._fitting(i, f"mask {file}", pixels)
            value, void_value = int(self.mask_value[i]), int(self.void_value[i])
            mask = labels == value if kind is MaskKind.LABEL else labels >= value
            return ObjectMask(mask.view(np.uint8), (labels == void_value).view(np.uint8) if void_value >= 0 else None)
        if kind is MaskKind.POLYGONS:
            return ObjectMask(mask_from_polygons(self.polygons(i), size), None)
        if kind is MaskKind.BOX:
            return ObjectMask(mask_from_box(self.box[i], size), None)
        try:
            return ObjectMask(mask_from_rle(self.run_lengths(i), size), None)
        except ValueError as error:
            raise ValueError(f"mask of object {self.native_id[i]} of {self.dataset}: {error}") from None

    def start_mask(self, i: int) -> NDArray[np.uint8] | None:
        """The mask from which refinement of object `i` starts, (H, W) uint8 of 0 and 1; None where it has none.

        It may be empty: the method before found nothing. Files are read as `predicted_from` says. Raises ValueError
        naming the file when it is unreadable, of another size than the image or holds other values, FileNotFoundError
        when it is gone.
        """
        if not len(self.start_file) or self.start_file[i] < 0:
            return None
        path = self.start_files[int(self.start_file[i])]
        labels = self._fitting(i, f"start mask {path}", read_strength(path))
        return (labels >= predicted_from(labels, path)).view(np.uint8)

    def _fitting(self, i: int, what: str, labels: NDArray) -> NDArray:
        """These pixels, which must be of the size of the image of object `i`."""
        if labels.shape != (size := self.size_of(i)):
            raise ValueError(f"{what} is {labels.shape}, its image {self.image_path(i)} is {size} (H, W)")
        return labels

    def polygons(self, i: int) -> list[NDArray[np.float64]]:
        """The rings of an object stored as polygons, each (2n,) as x, y, x, y, ... in pixels."""
        start, end = (int(place) for place in self.mask_range[i])
        return [self.coordinates[first:last] for first, last in pairwise(self.ring_offsets[start : end + 1])]

    def outline(self, i: int) -> NDArray:
        """(n, 2) as (x, y): the vertices of an object's polygons in the order of its file; else its mask's `row_ends`,
        which to extreme points are all its pixels.
        """
        if self.mask_kind[i] == MaskKind.POLYGONS:
            return np.concatenate(self.polygons(i)).reshape(-1, 2)
        return row_ends(self.read_mask(i).mask)

    def run_lengths(self, i: int) -> bytes:
        """COCO's compressed counts of an object stored as run lengths."""
        return bytes(self.rle[slice(*self.mask_range[i])])

    def select(self, keep: NDArray) -> ObjectIndex:
        """The same index with only these objects (bool mask or positions); images and blobs are shared, not copied."""
        keep = np.asarray(keep)
        if keep.dtype == bool and len(keep) != len(self):
            raise ValueError(f"select needs one bool per object, got {len(keep)} for {len(self)} objects")
        positions = np.flatnonzero(keep) if keep.dtype == bool else keep.astype(np.int64)
        optional = [name for name in ("start_file", "annotated_box") if len(getattr(self, name))]
        columns = {name: getattr(self, name)[positions] for name in (*OBJECT_COLUMNS, *optional)}
        return replace(self, **columns, native_id=self.native_id.take(positions))

    def select_images(self, keep: NDArray) -> ObjectIndex:
        """The same index with only these images (bool mask over the image columns) and their objects."""
        rows = np.flatnonzero(keep)
        number = np.cumsum(keep, dtype=np.int32) - np.int32(1)
        part = self.select(np.asarray(keep)[self.image])
        image = number[part.image]
        return replace(part, image_paths=self.image_paths.take(rows), image_size=self.image_size[rows], image=image)

    def compacted(self) -> ObjectIndex:
        """The same objects, without the polygons and run lengths that none of them uses."""
        in_rings, in_rle = self.mask_kind == MaskKind.POLYGONS, self.mask_kind == MaskKind.RLE
        starts, lengths = self.mask_range[:, 0], self.mask_range[:, 1] - self.mask_range[:, 0]
        rings = gathered(np.arange(len(self.ring_offsets) - 1), starts[in_rings], lengths[in_rings])
        ring_lengths = np.diff(self.ring_offsets)[rings]
        ranges = np.zeros((len(self), 2), np.int64)
        for kind in (in_rings, in_rle):
            offsets = offsets_of(lengths[kind])
            ranges[kind] = np.stack([offsets[:-1], offsets[1:]], axis=1)
        return replace(
            self,
            mask_range=ranges,
            ring_offsets=offsets_of(ring_lengths),
            coordinates=gathered(self.coordinates, self.ring_offsets[:-1][rings], ring_lengths),
            rle=gathered(self.rle, starts[in_rle], lengths[in_rle]),
        )

    def fingerprint(self) -> str:
        """A hash of what is annotated, wherever it lies: part of the identity of every run on this data."""
        digest = hashlib.blake2b(self.dataset.encode(), digest_size=16)
        for name in ("object_id", "box", "area", "category", "mask_kind", "mask_value", "void_value"):
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        digest.update("\n".join((*self.categories, self.content)).encode())
        if (self.start_file >= 0).any():  # only then, so that data sets without start masks keep their identity
            digest.update((np.asarray(self.start_file) >= 0).tobytes())
        return digest.hexdigest()


OBJECT_COLUMNS = (
    "object_id",
    "image",
    "box",
    "area",
    "category",
    "mask_kind",
    "mask_file",
    "mask_value",
    "void_value",
    "mask_range",
)


def predicted_from(labels: NDArray, path: str | Path) -> int:
    """The value from which pixels of a predicted mask are the object: 128, or 1 in a file of 0 and 1 only.

    The first is a PNG of 0 and 255 (1-bit ones are read as such) or a soft mask, the second one of classes, with a
    palette or without. Raises ValueError naming the file for what is neither: its values end between 2 and 127.
    """
    highest = int(labels.max(initial=0))
    if 2 <= highest < 128:
        raise ValueError(f"{path} has values up to {highest}; expected a mask of 0 and 255, or of 0 and 1")
    return 128 if highest > 1 else 1


def concatenate(parts: Sequence[ObjectIndex], dataset: str) -> ObjectIndex:
    """One index of several, e.g. PASCAL and SBD; every object keeps its id. Categories are matched by name."""
    categories = tuple(dict.fromkeys(name for part in parts for name in part.categories))

    def joined(name: str) -> NDArray:
        return np.concatenate([getattr(part, name) for part in parts])

    def strings(name: str) -> Strings:
        return Strings.joined([getattr(part, name) for part in parts])

    def shifted(columns: Sequence[NDArray], sizes: Sequence[int]) -> NDArray[np.int32]:
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        rows = [np.where(column >= 0, column + start, column) for column, start in zip(columns, starts)]
        return np.concatenate(rows).astype(np.int32)

    def start_files() -> NDArray[np.int32]:
        if not any(len(part.start_file) for part in parts):
            return np.zeros(0, np.int32)
        columns = [part.start_file if len(part.start_file) else np.full(len(part), -1) for part in parts]
        return shifted(columns, [len(part.start_files) for part in parts])

    ranges, first_ring, first_byte = [], 0, 0
    for part in parts:
        in_rle = (part.mask_kind == MaskKind.RLE)[:, None]
        ranges.append(part.mask_range + np.where(in_rle, first_byte, first_ring))
        first_ring, first_byte = first_ring + len(part.ring_offsets) - 1, first_byte + len(part.rle)
    places = [np.array([categories.index(name) for name in part.categories] + [-1], np.int32) for part in parts]
    index = ObjectIndex(
        dataset=dataset,
        image_paths=strings("image_paths"),
        image_size=joined("image_size"),
        object_id=joined("object_id"),
        native_id=strings("native_id"),
        image=shifted([part.image for part in parts], [part.num_images for part in parts]),
        box=joined("box"),
        area=joined("area"),
        category=np.concatenate([place[part.category] for place, part in zip(places, parts)]),
        mask_kind=joined("mask_kind"),
        categories=categories,
        mask_files=strings("mask_files"),
        mask_file=shifted([part.mask_file for part in parts], [len(part.mask_files) for part in parts]),
        mask_value=joined("mask_value"),
        void_value=joined("void_value"),
        mask_range=np.concatenate(ranges),
        ring_offsets=joined_offsets([part.ring_offsets for part in parts]),
        coordinates=joined("coordinates"),
        rle=joined("rle"),
        start_files=strings("start_files"),
        start_file=start_files(),
        annotated_box=joined("annotated" if any(len(part.annotated_box) for part in parts) else "annotated_box"),
        left_out=tuple(sentence for part in parts for sentence in part.left_out),
        content="+".join(part.content for part in parts),
    )
    check_unique(index)
    return index


def check_unique(index: ObjectIndex) -> None:
    """Raise ValueError naming an object that is listed twice."""
    order = np.argsort(index.object_id, kind="stable")
    again = order[1:][np.diff(index.object_id[order]) == 0]
    if len(again):
        first = int(again.min())
        raise ValueError(
            f"{index.dataset} lists {len(again)} objects twice, the first is {index.native_id[first]} of "
            f"{index.image_path(first)}; every object needs an id of its own"
        )
