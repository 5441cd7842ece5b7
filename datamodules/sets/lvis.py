"""LVIS v1: COCO's 2017 images with 1,203 categories; the split of an image is not COCO's."""

from __future__ import annotations

from pathlib import Path

from datamodules.catalog import DataSet, register
from datamodules.readers.coco import read_coco


def _annotation_file(root: Path, split: str) -> Path:
    below = root / "annotations" / f"lvis_v1_{split}.json"
    return below if below.exists() else root / f"lvis_v1_{split}.json"


def _split(split: str, images: int, objects: int) -> DataSet:
    return DataSet(
        f"lvis/{split}",
        # Its images lie in COCO's folders, here or beside this folder; the file says which of the two for each.
        read=lambda root: read_coco(
            _annotation_file(root, split), [root, root / "images", root.parent / "coco"], f"lvis/{split}"
        ),
        folder="lvis",
        variable="LVIS_ROOT",
        sources=lambda root: [_annotation_file(root, split)],
        layout="lvis_v1_{train,val}.json, and COCO's train2017/ and val2017/ there or in ../coco",
        fetch="lvis_v1_{train,val}.json.zip from https://www.lvisdataset.org/dataset, and COCO's 2017 images",
        images=images,
        classes=1_203,
        objects=objects,
    )


register(_split("train", 100_170, 1_270_141), _split("val", 19_809, 244_707))
