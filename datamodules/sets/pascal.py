"""PASCAL VOC 2012 segmentation, alone and, as most papers train, together with SBD."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datamodules.catalog import DataSet, register
from datamodules.index import ObjectIndex, concatenate
from datamodules.readers.voc import read_voc

CATEGORIES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

IMAGES = {"train": 1_464, "val": 1_449}


def _split(split: str) -> DataSet:
    return DataSet(
        f"pascal/{split}",
        read=lambda root: read_voc(root, split, f"pascal/{split}", CATEGORIES),
        folder="VOCdevkit/VOC2012",
        variable="PASCAL_ROOT",
        sources=lambda root: [
            root / "ImageSets" / "Segmentation" / f"{split}.txt",
            root / "SegmentationObject",
            root / "SegmentationClass",
        ],
        layout="JPEGImages, SegmentationObject, SegmentationClass, ImageSets/Segmentation/{train,val}.txt",
        fetch="VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012",
        images=IMAGES[split],
        classes=len(CATEGORIES),
    )


def with_sbd(pascal: ObjectIndex, sbd: ObjectIndex) -> ObjectIndex:
    """PASCAL train first, then SBD's images that it does not have; ids are those of the two sets."""
    own = {Path(path).stem for path in pascal.image_paths}
    return concatenate([pascal, without_images(sbd, own)], "pascal_sbd/train")


def sbd_first(pascal: ObjectIndex, sbd: ObjectIndex) -> ObjectIndex:
    """The same images, SBD's masks where both have them (ITIS); ids are those of the two sets."""
    own = {Path(path).stem for path in sbd.image_paths}
    return concatenate([sbd, without_images(pascal, own)], "sbd_pascal/train")


def without_images(index: ObjectIndex, names: set[str]) -> ObjectIndex:
    """The index without the images of these names (PASCAL and SBD call the same photo the same)."""
    return index.select_images(np.array([Path(path).stem not in names for path in index.image_paths], bool))


register(
    _split("train"),
    _split("val"),
    DataSet(
        "pascal/trainval",
        images=sum(IMAGES.values()),
        classes=len(CATEGORIES),
        parts=("pascal/train", "pascal/val"),
        combine=lambda parts: concatenate(parts, "pascal/trainval"),
    ),
    DataSet(
        "pascal_sbd/train",
        images=10_582,
        classes=len(CATEGORIES),
        parts=("pascal/train", "sbd/trainval_without_pascal_val"),
        combine=lambda parts: with_sbd(*parts),
    ),
    DataSet(
        "sbd_pascal/train",
        images=10_582,
        classes=len(CATEGORIES),
        parts=("pascal/train", "sbd/trainval_without_pascal_val"),
        combine=lambda parts: sbd_first(*parts),
    ),
)
