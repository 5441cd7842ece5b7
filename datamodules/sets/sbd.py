"""SBD, the Semantic Boundaries Dataset: instance masks for 11,355 images of PASCAL VOC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datamodules.catalog import DataSet, register
from datamodules.index import ObjectIndex, concatenate
from datamodules.readers.sbd import read_sbd
from datamodules.sets.pascal import CATEGORIES, without_images

IMAGES = {"train": 8_498, "val": 2_857}


def _split(split: str) -> DataSet:
    return DataSet(
        f"sbd/{split}",
        read=lambda root: read_sbd(root, split, f"sbd/{split}", CATEGORIES),
        folder="benchmark_RELEASE/dataset",
        variable="SBD_ROOT",
        sources=lambda root: [root / f"{split}.txt", root / "inst"],
        layout="img/*.jpg, inst/*.mat, train.txt, val.txt",
        fetch="benchmark.tgz of the Semantic Boundaries Dataset (Hariharan et al., ICCV 2011)",
        images=IMAGES[split],
        classes=len(CATEGORIES),
    )


def without_pascal_val(parts: Sequence[ObjectIndex]) -> ObjectIndex:
    """SBD train and val, without the images on which PASCAL is evaluated."""
    train, val, pascal_val = parts
    both = concatenate([train, val], "sbd/trainval_without_pascal_val")
    return without_images(both, {Path(path).stem for path in pascal_val.image_paths})


register(
    _split("train"),
    _split("val"),
    DataSet(
        "sbd/trainval_without_pascal_val",
        parts=("sbd/train", "sbd/val", "pascal/val"),
        combine=without_pascal_val,
    ),
)
