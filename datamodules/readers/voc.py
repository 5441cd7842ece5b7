"""PASCAL VOC's instance masks: palette PNGs whose indices number the objects of an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.index import ObjectIndex
from datamodules.masks import read_label_map
from datamodules.readers.mask_files import Annotation, index_label_maps, read_names, with_progress

VOID = 255


def read_voc(root: Path, split: str, dataset: str, categories: tuple[str, ...]) -> ObjectIndex:
    """The objects of a VOC segmentation split; `root` is the folder with JPEGImages.

    Object i is where SegmentationObject is i; 255 is void; its category is what SegmentationClass says at its first
    pixel. Raises FileNotFoundError and ValueError naming the file that is missing or not as it should be.
    """
    names = read_names(root / "ImageSets" / "Segmentation" / f"{split}.txt")
    images = [root / "JPEGImages" / f"{name}.jpg" for name in names]
    annotations = _annotations(root, names, images, dataset, len(categories))
    return index_label_maps(images, annotations, dataset, void_value=VOID, categories=categories)


def _annotations(
    root: Path, names: Sequence[str], images: Sequence[Path], dataset: str, categories: int
) -> Iterator[Annotation]:
    for name, image in with_progress(list(zip(names, images)), dataset):
        path = root / "SegmentationObject" / f"{name}.png"
        objects, classes = read_label_map(path), read_label_map(root / "SegmentationClass" / f"{name}.png")
        if objects.shape != classes.shape:
            raise ValueError(
                f"{path} is {objects.shape} (H, W), SegmentationClass says {classes.shape}; fetch both again"
            )
        values = list(range(1, int(objects[objects != VOID].max(initial=0)) + 1))
        places = [_category(objects, classes, value, categories, path) for value in values]
        yield Annotation(image, path, [f"{name}/{value}" for value in values], values, places)


def _category(objects: NDArray, classes: NDArray, value: int, categories: int, path: Path) -> int:
    first = int(np.argmax(objects == value))
    if objects.flat[first] != value:
        return -1  # no pixels: left out where areas are measured
    category = int(classes.flat[first])
    if not 1 <= category <= categories:
        raise ValueError(
            f"object {value} of {path} has category {category} at its first pixel in SegmentationClass; expected 1 to "
            f"{categories}: are both palette PNGs as VOC ships them?"
        )
    return category - 1
