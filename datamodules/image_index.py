"""The objects of an index by their images: which images training and evaluation go through, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.catalog import open_index
from datamodules.index import ObjectIndex, concatenate, object_ids
from datamodules.selection import Selection, open_objects

DataSpecs = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]


@dataclass(frozen=True)
class ImageIndex:
    """Images in order, each with its objects.

    Args:
        objects: all objects there are.
        rows: (n,) which of the index' images these are, ascending.
        bounds: (n, 2) the first object of each image, and the one after its last.
        keys: (n,) int64: what draws about an image depend on, the same wherever its file lies.
    """

    objects: ObjectIndex
    rows: NDArray[np.int64]
    bounds: NDArray[np.int64]
    keys: NDArray[np.int64]

    @classmethod
    def of(cls, objects: ObjectIndex, rows: NDArray, keys: NDArray) -> ImageIndex:
        """These images (rows of the image columns) of an index; `keys` are those of all of its images."""
        bounds = np.stack([np.searchsorted(objects.image, rows + step) for step in (0, 1)], axis=1)
        return cls(objects, np.asarray(rows, np.int64), bounds.astype(np.int64), keys[rows])

    def __len__(self) -> int:
        return len(self.rows)

    def path(self, position: int) -> Path:
        """The file of an image."""
        return Path(self.objects.image_paths[int(self.rows[position])])

    def size(self, position: int) -> tuple[int, int]:
        """(H, W) of it, as its annotations say."""
        height, width = self.objects.image_size[self.rows[position]].tolist()
        return height, width


def training_images(specs: DataSpecs, root: Path | str | None = None, seed: int = 0) -> ImageIndex:
    """The images with at least one object that can be trained on.

    Left out, and counted in the objects' `left_out`, is what has a box, or a mask with a box of its own, of a side of
    less than a pixel: what a model found nothing of. Crowds and annotations without pixels were left out when the file
    was listed. Raises ValueError for an object without a category, and when no image is left.
    """
    parts = _parts(specs, root, seed)
    index, keys = _joined([(part, image_keys(part)) for _, part in parts])
    sides = np.minimum(*(box[:, 2:] - box[:, :2] + 1 for box in (index.box, index.annotated))).min(axis=1)
    if (sides < 1).any():
        none = np.flatnonzero(sides < 1)
        many = f"{len(none):,} object{'' if len(none) == 1 else 's'}"
        why = (
            f"{many} whose mask is empty or whose box is below one pixel, the first is {index.native_id[int(none[0])]}"
        )
        index = replace(index.select(sides >= 1), left_out=(*index.left_out, why))
    if not len(index):
        raise ValueError(f"no image of {index.dataset} has an object of a pixel or more; there is nothing to train on")
    without = np.flatnonzero(np.asarray(index.category) < 0)
    if len(without):
        i = int(without[0])
        raise ValueError(
            f"{len(without):,} of {len(index):,} objects of {index.dataset} have no category, the first is "
            f"{index.native_id[i]} of {index.image_path(i)}; instances are trained with one each: name such data"
        )
    return ImageIndex.of(index, np.unique(index.image), keys)


def evaluation_images(specs: DataSpecs, root: Path | str | None = None, seed: int = 0) -> ImageIndex:
    """All images of data sets, those without objects among them: what is found there is wrong.

    Of a data set with further values (`half`, `limit`, `categories`, ...) the images that still have an object.
    """
    kept, rows, first = [], [], 0
    for selection, part in _parts(specs, root, seed, images_alone=True):
        whole = selection == Selection(selection.name)
        rows.append((np.arange(part.num_images) if whole else np.unique(part.image)) + first)
        kept.append((part, image_keys(part)))
        first += part.num_images
    index, keys = _joined(kept)
    return ImageIndex.of(index, np.concatenate(rows), keys)


def repeat_factors(specs: DataSpecs, threshold: float, root: Path | str | None = None, seed: int = 0) -> NDArray:
    """(images,) float64: how often each image of the data is to be seen in an epoch (Gupta et al., LVIS, CVPR 2019).

    r of a category is max(1, sqrt(threshold / f)), f the share of the images with objects that have one of it; r of an
    image is the largest of its categories', 1 of one without. Labels count as their annotations do, whatever they
    found.
    """
    plain = [replace(selection, labelled=None) for selection in map(Selection.of, _listed(specs))]
    index = open_objects([vars(selection) for selection in plain], root, seed)
    named = np.asarray(index.category) >= 0
    classes = max(len(index.categories), 1)
    pairs = np.unique(index.image[named].astype(np.int64) * classes + index.category[named])  # each once per image
    images, categories = np.divmod(pairs, classes)
    images_with = np.bincount(categories, minlength=classes)
    share = np.maximum(images_with, 1) / max(len(np.unique(index.image)), 1)
    factor = np.maximum(1.0, np.sqrt(threshold / share))
    found = np.ones(index.num_images)
    np.maximum.at(found, images, factor[categories])
    return found


def category_names(specs: DataSpecs, root: Path | str | None = None) -> tuple[str, ...]:
    """The categories of data sets, in the order of labels; their ids in a file play no part."""
    each = [open_index(selection.name, root).categories for selection in map(Selection.of, _listed(specs))]
    return each[0] if len(each) == 1 else tuple(dict.fromkeys(name for names in each for name in names))


def image_keys(index: ObjectIndex) -> NDArray[np.int64]:
    """(images,) 63-bit keys: hashes of data set and file name, the same on every machine."""
    return object_ids(index.dataset, (path.rpartition("/")[2] for path in index.image_paths))


def _listed(specs: DataSpecs) -> Sequence[str | Mapping[str, Any]]:
    return [specs] if isinstance(specs, str | Mapping) else specs


def _parts(
    specs: DataSpecs, root: Path | str | None, seed: int, images_alone: bool = False
) -> list[tuple[Selection, ObjectIndex]]:
    """Each data set's selection and what it leaves."""
    return [
        (Selection.of(spec), open_objects([spec], root, seed, images_alone=images_alone)) for spec in _listed(specs)
    ]


def _joined(parts: Sequence[tuple[ObjectIndex, NDArray]]) -> tuple[ObjectIndex, NDArray[np.int64]]:
    """One index of several with the keys of all of its images, which are those of the data sets alone."""
    indices = [index for index, _ in parts]
    index = indices[0] if len(indices) == 1 else concatenate(indices, "+".join(each.dataset for each in indices))
    return index, np.concatenate([keys for _, keys in parts])
