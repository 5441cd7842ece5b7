"""SBD's instance masks: one .mat file per image with a label map and the category of each label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from datamodules.index import ObjectIndex
from datamodules.masks import read_label_map, read_mat
from datamodules.readers.mask_files import Annotation, index_label_maps, read_names, with_progress


def read_sbd(root: Path, split: str, dataset: str, categories: tuple[str, ...]) -> ObjectIndex:
    """The objects of an SBD split; `root` is the folder with img, inst and the lists. SBD has no void.

    Object i is where GTinst.Segmentation is i, its category GTinst.Categories[i - 1]. Raises FileNotFoundError and
    ValueError naming the file that is missing or not as it should be.
    """
    names = read_names(root / f"{split}.txt")
    images = [root / "img" / f"{name}.jpg" for name in names]
    return index_label_maps(
        images, _annotations(root, names, images, dataset, len(categories)), dataset, categories=categories
    )


def _annotations(
    root: Path, names: Sequence[str], images: Sequence[Path], dataset: str, categories: int
) -> Iterator[Annotation]:
    for name, image in with_progress(list(zip(names, images)), dataset):
        path = root / "inst" / f"{name}.mat"
        labels = read_label_map(path)
        # One object's category is a bare number in the file, no list.
        places = np.atleast_1d(np.asarray(read_mat(path).Categories, np.int64)).ravel()
        values = list(range(1, int(labels.max(initial=0)) + 1))
        if len(places) < len(values):
            raise ValueError(f"{path} has objects up to {len(values)}, but {len(places)} categories; fetch it again")
        unknown = [place for place in places[: len(values)] if not 1 <= place <= categories]
        if unknown:
            raise ValueError(f"{path} has an object of category {unknown[0]}; expected 1 to {categories}")
        yield Annotation(
            image, path, [f"{name}/{value}" for value in values], values, [int(place) - 1 for place in places]
        )
