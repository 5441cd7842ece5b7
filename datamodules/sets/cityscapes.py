"""Cityscapes (Cordts et al., CVPR 2016): objects of eight classes in the streets of 50 cities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from datamodules.catalog import DataSet, register
from datamodules.index import ObjectIndex
from datamodules.masks import read_label_map
from datamodules.readers.mask_files import Annotation, index_label_maps, with_progress

CLASSES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}

IMAGES = {"train": 2_975, "val": 500}

UNLABELLED = 0

NUMBERED = 1000  # object n of class c is c * 1000 + n; what is below is a class without objects, or a group

IMAGE_END, LABELS_END = "_leftImg8bit.png", "_gtFine_instanceIds.png"


def read_cityscapes(root: Path, split: str) -> ObjectIndex:
    """The objects of a split with fine annotations, each the pixels of one value in `*_gtFine_instanceIds.png`.

    `leftImg8bit/<split>/<city>/<frame>_leftImg8bit.png` and `gtFine/<split>/<city>/<frame>_gtFine_instanceIds.png`;
    native ids are `<frame>/<value>`. The eight classes that the benchmark evaluates; groups that nobody told apart (a
    class' value without a number), caravans and trailers are left out and counted. Void is what nobody labelled (0);
    the own car, the rectification's border and what is out of the region of interest (1 to 3) are no object, and
    neither is a group beside one. The format is known from its documentation, files were not at hand.

    Raises FileNotFoundError naming what is missing, ValueError naming a map that does not fit its image.
    """
    images = sorted((root / "leftImg8bit" / split).glob(f"*/*{IMAGE_END}"))
    if not images:
        raise FileNotFoundError(
            f"no images in {root / 'leftImg8bit' / split}; expected <city>/<frame>{IMAGE_END}, from "
            "leftImg8bit_trainvaltest"
        )
    maps = [root / "gtFine" / split / image.parent.name / f"{_frame(image)}{LABELS_END}" for image in images]
    if missing := [path for path in maps if not path.is_file()]:
        raise FileNotFoundError(
            f"{missing[0]} is missing ({len(missing)} of {len(maps)} maps); fetch gtFine_trainvaltest, whose polygons "
            "alone are not read"
        )
    passed_over = {"groups that nobody told apart": 0, "objects of classes that are not evaluated": 0}
    index = index_label_maps(
        images,
        _annotations(images, maps, f"cityscapes/{split}", passed_over),
        f"cityscapes/{split}",
        void_value=UNLABELLED,
        categories=tuple(CLASSES.values()),
    )
    counted = tuple(f"{count:,} {what}" for what, count in passed_over.items() if count)
    return replace(index, left_out=(*counted, *index.left_out))


def _frame(image: Path) -> str:
    return image.name.removesuffix(IMAGE_END)


def _annotations(
    images: Sequence[Path], maps: Sequence[Path], name: str, passed_over: dict[str, int]
) -> Iterator[Annotation]:
    places = {number: place for place, number in enumerate(CLASSES)}
    groups, others = passed_over
    for image, path in with_progress(list(zip(images, maps)), name):
        labels = read_label_map(path)
        values = np.flatnonzero(np.bincount(labels.ravel()))
        numbered = values[values >= NUMBERED]
        objects = [int(value) for value in numbered if value // NUMBERED in places]
        passed_over[groups] += sum(int(value) in places for value in values)
        passed_over[others] += len(numbered) - len(objects)
        categories = [places[value // NUMBERED] for value in objects]
        yield Annotation(image, path, [f"{_frame(image)}/{value}" for value in objects], objects, categories)


def _sources(root: Path, split: str) -> list[Path]:
    folders = [root / "leftImg8bit" / split, root / "gtFine" / split]
    return [city for folder in folders for city in sorted(folder.glob("*/")) or [folder]]


def _split(split: str) -> DataSet:
    return DataSet(
        f"cityscapes/{split}",
        read=lambda root: read_cityscapes(root, split),
        folder="cityscapes",
        variable="CITYSCAPES_ROOT",
        sources=lambda root: _sources(root, split),
        layout="leftImg8bit/{train,val}/<city>/*_leftImg8bit.png, gtFine/{train,val}/<city>/*_gtFine_instanceIds.png",
        fetch="leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com",
        images=IMAGES[split],
    )


register(_split("train"), _split("val"))
